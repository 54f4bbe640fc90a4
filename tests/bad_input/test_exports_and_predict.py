"""What toast export and toast predict are given."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "export nowhere format=onx": ("format=onx is not known (did you mean onnx?): use safetensors, onnx, torch_export."),
    "export nowhere seed=-1": "seed=-1 cannot be used: give a whole number from 0.",
    "export nowhere format=onnx dtype=bf16": (
        "format=onnx has no runtime for dtype=bf16: use fp32, fp16, int8, or format=safetensors or torch_export."
    ),
    "export nowhere dtype=int8": (
        "format=safetensors has no runtime for dtype=int8: use fp32, fp16, bf16, or format=onnx."
    ),
    "export nowhere dtype=int4": "dtype=int4 is not known (did you mean int8?): use fp32, fp16, bf16, int8.",
    "export nowhere format=onnx dtype=int8 quantisation=qat": "quantisation=qat is not known: use dynamic, static.",
    "export nowhere format=onnx quantisation=static": (
        "quantisation=static is a way to int8: give format=onnx dtype=int8 with it."
    ),
    "export nowhere plan=[]": "plan is an empty list: give plans of the run, such as plan=[none,9-11].",
    "export nowhere format=onnx plan=[none,9-11]": (
        "format=onnx holds one plan: give several with format=safetensors, or one, such as plan=9-11."
    ),
    "predict @export @photo.png --plan 9-11": "export holds one plan, None, and not 9-11: leave the plan out.",
    "predict @export nowhere.png": "nowhere.png does not exist: give image files or folders of images.",
    "predict @export @void": "void holds no image files: give others.",
    "predict @export @photo.png --max-pixels many": (
        "argument --max-pixels: invalid int value: 'many': see toast predict --help."
    ),
    "predict @export @photo.png --max-pixels 0": "--max-pixels 0 is not a number of pixels: give a whole number from 1.",
    "export one run=two": "toast export was given two runs, one and run=two: give one of them.",
    "predict @export @photo.png --top 0": "--top 0 cannot be used: give a whole number from 1.",
    "predict @cut_recipe @photo.png": (
        "cut_recipe/recipe.json cannot be read (JSONDecodeError): export the model again."
    ),
    "predict @outside @photo.png": (
        "outside/recipe.json names no model file that toast export writes: export the model again."
    ),
    "predict @no_crop @photo.png": (
        "no_crop/recipe.json describes no preprocessing (KeyError: 'crop_pct'): export the model again."
    ),
    "predict @tampered @photo.png": (
        "tampered/model.safetensors is not the file that recipe.json was written for: it was changed or cut "
        "short; export the model again."
    ),
    "predict @rehashed @photo.png": (
        "rehashed/recipe.json does not describe model.safetensors (Error while deserializing …"
    ),
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])


# What only shows when numbers are computed or images are decoded: a run has begun then, and says so before it says this.
STOPPED = {
    "predict @export @text.png": "None of the 1 files is an image that can be decoded.",
}


@pytest.mark.parametrize("command", STOPPED)
def test_the_last_line_says_why_it_stopped(command: str, check_last_line: Check):
    check_last_line(command, STOPPED[command])
