"""GL-DMNet on scenes of RGB and depth, for mmengine's Runner.

    Runner.from_cfg(Config.fromfile("gldmnet.py")).train()

For the paper's training, set size = (256, 256), backbone="resnet50", transformer="pvt_v2_b2",
weights and transformer_weights "pretrained", epochs = 200 and lr=1e-4, and add
dict(type="StagesHook", encoder=30, transformer=30) to custom_hooks.
"""

# ruff: noqa: C408
custom_imports = dict(imports=["headwise.pipelines.saliency.openmmlab"], allow_failed_imports=False)
default_scope = "mmseg"

# Folders of RGB, depth and GT, or of several sets; or a table.
train_root, test_root = "scenes/", "scenes/"
size = (128, 128)  # height and width that the model sees, in multiples of 32
near = "bright"  # whether near things are bright or dark in the depth maps
epochs, batch_size = 60, 8

train_pipeline = [
    dict(type="LoadPicture"),
    dict(type="LoadDepth", near=near, size=size),
    dict(type="LoadSaliencyMask", size=size),
    dict(type="VaryScene", flip=True, zoom=0.3, turn=10.0, colour=0.3, blank=0.1),
    dict(type="PackSegInputs", meta_keys=("img_path", "set", "ori_shape", "img_shape")),
]
test_pipeline = [
    dict(type="LoadPicture"),
    dict(type="LoadDepth", near=near, size=size),
    dict(type="LoadSaliencyMask"),  # in the size of its file; skipped without one
    dict(type="PackSegInputs", meta_keys=("img_path", "set", "ori_shape", "img_shape")),
]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RGBDSaliencyDataset", data_root=train_root, part="train", pipeline=train_pipeline
    ),
)
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RGBDSaliencyDataset",
        data_root=test_root,
        part="test",
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_dataloader = test_dataloader
val_evaluator = dict(type="SaliencyMetric")
test_evaluator = dict(type="SaliencyMetric", by_set=True)

model = dict(
    type="GLDMNetSegmentor",
    backbone="small",
    transformer="small",
    drop_path=0.1,
    data_preprocessor=dict(type="RGBDPreprocessor"),
)

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.5, begin=0, end=2),
    dict(type="CosineAnnealingLR", T_max=epochs - 2, begin=2, end=epochs),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=epochs, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=10),
    checkpoint=dict(
        type="CheckpointHook", interval=5, max_keep_ckpts=1, save_best="saliency/MAE", rule="less"
    ),
)
randomness = dict(seed=0)
work_dir = "work_dirs/gldmnet"
