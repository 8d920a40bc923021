"""ResNet 18 to 200 and their vc and vd forms (He et al., 2015, https://arxiv.org/abs/1512.03385; 2018,
https://arxiv.org/abs/1812.01187).

As PaddleClas has it: the stride sits on the 3x3 convolution, and ResNet18 and 34 project even the first shortcut.
The vc form has a stem of three 3x3 convolutions; the vd form also has shortcuts that average before a 1x1 convolution.
"""

from __future__ import annotations

from edgecls.zoo import residual
from edgecls.zoo.residual import LISTED, Plan

R18, R34, R50 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3)
R101, R152, R200 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 12, 48, 3)
MODELS = {
    "ResNet18": Plan(R18, bottleneck=False, out=64, names=LISTED),
    "ResNet18_vd": Plan(R18, bottleneck=False, out=64, deep=True, vd=True, names=LISTED),
    "ResNet34": Plan(R34, bottleneck=False, out=64, names=LISTED),
    "ResNet34_vd": Plan(R34, bottleneck=False, out=64, deep=True, vd=True, names=LISTED),
    "ResNet50": Plan(R50, names=LISTED),
    "ResNet50_vc": Plan(R50, deep=True),
    "ResNet50_vd": Plan(R50, deep=True, vd=True, names=LISTED),
    "ResNet101": Plan(R101, names=LISTED),
    "ResNet101_vd": Plan(R101, deep=True, vd=True, names=LISTED),
    "ResNet152": Plan(R152, names=LISTED),
    "ResNet152_vd": Plan(R152, deep=True, vd=True, names=LISTED),
    "ResNet200_vd": Plan(R200, deep=True, vd=True, names=LISTED),
}
build = residual.builder(MODELS)
