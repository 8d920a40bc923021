"""ResNeXt (Xie et al., 2016, https://arxiv.org/abs/1611.05431), its vd forms, and the wide ones that were trained on
Instagram's hashtags (Mahajan et al., 2018, https://arxiv.org/abs/1805.00932).

``32x4d`` is 32 groups of 4 channels in the first stage.
"""

from __future__ import annotations

from edgecls.zoo import residual
from edgecls.zoo.blocks import Style
from edgecls.zoo.residual import Names, Plan
from edgecls.zoo.resnet import R50, R101, R152

STYLE = Style(conv="_conv", norm="_bn")
WSL = Names("._conv_stem", "", "._conv{next}_{repeat}", "_conv{}", "_short._conv", "._out", STYLE)
MODELS = {
    f"ResNeXt{depth}{vd}_{groups}x4d": Plan(
        repeats, deep=bool(vd), vd=bool(vd), width=4 * groups, groups=groups
    )
    for depth, repeats in ((50, R50), (101, R101), (152, R152))
    for vd in ("", "_vd")
    for groups in (32, 64)
} | {
    f"ResNeXt101_32x{each}d_wsl": Plan(R101, width=32 * each, groups=32, names=WSL)
    for each in (8, 16, 32, 48)
}
build = residual.builder(MODELS)
