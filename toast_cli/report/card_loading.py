"""How an export is loaded, as its model card says it: by toast, by timm, or by what lies beside the weights."""

from collections.abc import Iterator, Mapping
from typing import Any

from toast_cli.report.card_plans import is_of_several, plans_of
from toast_cli.surgery.recipe import WEIGHTS

BY_TIMM, _BY_ITSELF = "config.json", "modeling.py"  # what may lie beside the weights, see surgery/standalone.py
_ONNX = "model.onnx"
_TOAST = "import toast_cli  # pip install toast-cli"


def loading_of(recipe: Mapping[str, Any], repository: str | None) -> Iterator[str]:
    """The lines in Markdown for the export that ``recipe`` describes, in a ``repository`` or in a folder of one's own."""
    place, file, beside = repository or ".", recipe["file"], recipe.get("beside", {})
    if repository is None:
        yield "In this folder:"
        yield ""
    one = plans_of(recipe)[-1]
    if is_of_several(recipe):
        yield from _python(_TOAST, f'model = toast_cli.load("{place}", plan="{one["plan"]}")')
        yield "All of them in memory, every weight once, and another one without loading:"
        yield ""
        yield from _python(
            _TOAST, f'several = toast_cli.load_elastic("{place}")', f'outputs = several.use("{one["plan"]}")(images)'
        )
    elif file == WEIGHTS:
        yield from _python(_TOAST, f'model = toast_cli.load("{place}")')
    if BY_TIMM in beside:
        kind = "hf-hub" if repository else "local-dir"
        yield "Or without toast:"
        yield ""
        yield from _python("import timm", f'model = timm.create_model("{kind}:{place}", pretrained=True).eval()')
    if _BY_ITSELF in beside:
        folder = f", in the folder of `hf download {repository} --local-dir <dir>`" if repository else ""
        yield f"Or without toast, by {_BY_ITSELF}, which needs torch and timm{folder}:"
        yield ""
        yield from _python("from modeling import load", "model = load()")
    if file not in (WEIGHTS, _ONNX):
        yield f"torch.export.load reads {file}. It can execute what such a file holds: load it only if you know where it is from."
    if file == _ONNX:
        imports = ["import onnxruntime", *(["from huggingface_hub import hf_hub_download"] if repository else [])]
        path = f'hf_hub_download("{repository}", "{file}")' if repository else f'"{file}"'
        session = f"session = onnxruntime.InferenceSession({path})"
        yield from _python("\n".join(imports), session, 'outputs = session.run(None, {"images": images})[0]')
    if one.get("head") is not None and file in (WEIGHTS, _ONNX):
        yield "For image files:"
        yield ""
        which = f" --plan {one['plan']}" * is_of_several(recipe)
        yield f"    toast predict {place} photo.jpg{which}"


def _python(imports: str, loads: str, runs: str = "outputs = model(images)") -> Iterator[str]:
    yield from ("```python", imports, "", loads, runs, "```", "")
