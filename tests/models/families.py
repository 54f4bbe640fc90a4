"""One model of every family that timm's VisionTransformer and Eva classes cover: its name and its options."""

FAMILIES = {
    "class token": ("vit_tiny_patch16_224", {}),
    "distillation token": ("deit_tiny_distilled_patch16_224", {}),
    "layer scale": ("vit_small_patch14_dinov2", {}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "position embedding beside the class token": ("deit3_small_patch16_224", {}),
    "average pooling, no class token": ("vit_base_patch16_gap_224", {}),
    "average pooling, several registers": ("vit_medium_patch16_reg4_gap_256", {}),
    "attention pooling": ("vit_base_patch16_siglip_224", {}),
    "norm before the blocks": ("vit_base_patch32_clip_224", {}),
    "norm of queries and keys": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "no bias": ("vit_tiny_patch16_224", {"qkv_bias": False}),
    "parallel blocks": ("vit_small_patch16_18x2_224", {}),
    "rotary embeddings, DINOv3": ("vit_small_patch16_dinov3", {}),
    "rotary embeddings, EVA-02": ("eva02_tiny_patch14_224", {}),
    "rotary embeddings alone": ("vit_small_patch16_rope_224", {}),
    "attention pooling, Perception Encoder": ("vit_pe_core_tiny_patch16_384", {}),
    "differential attention": ("vit_dlittle_patch16_reg1_gap_256", {}),
    "gated MLP, no biases": ("aimv2_large_patch14_224", {"mlp_ratio": 2}),
    "norms inside of attention and MLP": ("beit3_base_patch16_224", {}),
    "convolutions before the blocks": ("vit_small_r26_s32_224", {"patch_size": 1}),
}
