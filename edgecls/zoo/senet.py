"""ResNet and ResNeXt with squeeze-excite gates (Hu et al., 2017, https://arxiv.org/abs/1709.01507)."""

from __future__ import annotations

from edgecls.zoo import residual
from edgecls.zoo.residual import Plan
from edgecls.zoo.resnet import R18, R34, R50, R101, R152

MODELS = {
    "SE_ResNet18_vd": Plan(R18, bottleneck=False, out=64, deep=True, vd=True, reduction=16),
    "SE_ResNet34_vd": Plan(R34, bottleneck=False, out=64, deep=True, vd=True, reduction=16),
    "SE_ResNet50_vd": Plan(R50, deep=True, vd=True, reduction=16),
    "SE_ResNeXt50_32x4d": Plan(R50, width=128, groups=32, reduction=16),
    "SE_ResNeXt50_vd_32x4d": Plan(R50, deep=True, vd=True, width=128, groups=32, stem=128, reduction=16),
    "SE_ResNeXt101_32x4d": Plan(R101, width=128, groups=32, reduction=16),
    "SENet154_vd": Plan(R152, deep=True, vd=True, width=256, groups=64, stem=128, reduction=16),
}
build = residual.builder(MODELS)
