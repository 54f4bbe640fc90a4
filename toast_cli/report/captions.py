"""What each kind of figure shows, in words."""

_NOISE = "≈: no change lies in the 95% paired interval."
_WORDS = {
    "spans": "Change in test accuracy, in points, for every single span: blocks s+1 to e leave and a map takes their place. Red loses, "
    f"blue gains; {_NOISE}",
    "trade-offs": "Test accuracy of every plan against its share of the original's GFLOPs. The line joins the best trade-offs, bars are 95% "
    "paired intervals of the change. The ring marks the plan with the fewest GFLOPs, of the best for each number of blocks, whose interval "
    "reaches 0; like all plans named here it was chosen on test.",
    "fit-images": "Test accuracy against the number of images that the maps are fitted on; bands are standard deviations over seeds and draws.",
    "additivity": "The change of a plan against the sum of the changes of its blocks, each removed alone; bars are 95% paired intervals.",
    "transfer": f"Change in test accuracy, in points, for maps fitted on one data set and used on another; {_NOISE}",
    "projection": "Test images of one run in the plane of the original's two leading principal components, with test accuracies: the "
    "original, the plan to take, the smallest that keeps three quarters of the original's accuracy, and the worst that is no smaller.",
    "similarity": "How alike the outputs of all pairs of blocks are, over the tokens of the fit images; dark means alike.",
    "approximation": "How alike the last latents with and without a span are, against how alike the latents at the span's ends are.",
    "guide": "How well the similarity of a span's ends predicts what the span costs in accuracy; bars are 95% paired intervals.",
}
_MEASURES = {"r2_identity": "R² without a map", "r2": "R² of the linear map", "cka": "linear CKA", "cosine": "cosine", "mse": "MSE"}  # fmt: skip


def caption(name: str) -> str:
    """A sentence on the figure whose file is called ``name``; empty for a kind that is not known."""
    kind = next((kind for kind in _WORDS if name.startswith(f"{kind}-")), None)
    if kind is None:
        return ""
    rest = name.removeprefix(f"{kind}-")
    measure = next((text for key, text in _MEASURES.items() if rest.startswith(f"{key}-")), None)
    told = kind in ("similarity", "approximation", "guide") and measure
    return f"{_WORDS[kind]} Measured by {measure}." if told else _WORDS[kind]
