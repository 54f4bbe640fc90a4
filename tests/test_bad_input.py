"""Whatever is given wrongly: one line that says what was given, what is allowed and what to do; status 1, no traceback, no run.

The tables map a command line to all that is said; a sentence that ends with … is the beginning of a longer one. @name is a
file or folder made by the functions at the end, {here} the folder that the command is given in.
"""

import copy
import dataclasses
import hashlib
import io
import json
import pickle
import shlex
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import save_image_folder, tiny
from tests.surgery.test_saved import damage, saved
from toast_cli.models import factory as models
from toast_cli.runs.results import read_csv
from toast_cli.runs.rows import Row
from toast_cli.surgery.saved import RECIPE, WEIGHTS

Toast = Callable[..., tuple[int, str, str]]

COMMANDS = {
    "fly": (
        "'fly' is not a verb: use run, search, similarity, finetune, export, predict, bench, report, status, "
        "doctor, list, or see toast --help."
    ),
    "rn": (
        "'rn' is not a verb (did you mean run?): use run, search, similarity, finetune, export, predict, bench, "
        "report, status, doctor, list, or see toast --help."
    ),
    "--wings": "unrecognized arguments: --wings: see toast --help.",
    "run --fresh": (
        "unrecognized arguments: --fresh: settings are written key=value, such as fresh=true; see toast run --help."
    ),
    "run spans": (
        "Error parsing override 'spans' missing EQUAL at '<EOF>'. See toast run --help for the settings and toast "
        "list for the options."
    ),
    "run --config-dir nowhere": (
        "Additional config directory '{here}/nowhere' not found. See toast run --help for the settings and toast "
        "list for the options."
    ),
    "finetune nope": (
        "Error parsing override 'nope' missing EQUAL at '<EOF>'. See toast run --help for the settings and toast "
        "list for the options."
    ),
    "bench data=digits": (
        "Could not override 'data'. No match in the defaults list. To append to your default list use "
        "+data=digits. See toast run --help for the settings and toast list for the options."
    ),
    "export": "toast export needs the folder of a finished run: toast export outputs/run/<run> plan=9-11.",
    "predict": "the following arguments are required: export, images: see toast predict --help.",
    "predict nowhere photo.png --top abc": "argument --top: invalid int value: 'abc': see toast predict --help.",
    "report": "the following arguments are required: folders: see toast report --help.",
    "report . --out": "argument --out: expected one argument: see toast report --help.",
    "list model": (
        "'model' cannot be listed (did you mean models?): use one of models, data, translators, probes, "
        "protocols, experiments."
    ),
    "list models data": "unrecognized arguments: data: see toast list --help.",
    "status --wings": "unrecognized arguments: --wings: see toast status --help.",
    "doctor now": "unrecognized arguments: now: see toast doctor --help.",
    "similarity seeds": (
        "Error parsing override 'seeds' missing EQUAL at '<EOF>'. See toast run --help for the settings and toast "
        "list for the options."
    ),
    "list --config-dir nowhere": (
        "--config-dir nowhere is not a folder: give one that holds groups such as model/ or data/."
    ),
}

SETTINGS = {
    "run model=dinov2_x": (
        "model=dinov2_x is not there (did you mean dinov2_s, dinov2_l, dinov2_b?): use one of deit_b, deit_s, "
        "digits_vit, dinov2_b, dinov2_l, dinov2_s, timm, vit_b, vit_l, vit_s, vit_t, or --config-dir <dir> with "
        "your own."
    ),
    "run data=cifar": (
        "data=cifar is not there (did you mean cifar10, cifar100?): use one of cifar10, cifar100, "
        "cifar100_coarse, digits, digits_inverted, fashion_mnist, folder, imagenet1k, mnist, or --config-dir "
        "<dir> with your own."
    ),
    "run translator=lnear": (
        "translator=lnear is not there (did you mean linear?): use one of affine, deep_mlp, identity, linear, "
        "lowrank, mlp, orthogonal, ridge, shift, or --config-dir <dir> with your own."
    ),
    "run probe=svm": (
        "probe=svm is not there: use one of knn, linear, logistic, mlp, pretrained_head, or --config-dir <dir> "
        "with your own."
    ),
    "run experiment=smoke": (
        "experiment=smoke is not there (did you mean smoke/main?): use one of paper/crosscheck_deit_b, "
        "paper/crosscheck_deit_s, paper/findings, paper/finetune, paper/main, …"
    ),
    "run modle=vit_s": (
        "Could not override 'modle'. To append to your config use +modle=vit_s. See toast run --help for the "
        "settings and toast list for the options."
    ),
    "run model.nmae=x": (
        "Could not override 'model.nmae'. To append to your config use +model.nmae=x. See toast run --help for "
        "the settings and toast list for the options."
    ),
    "run +model.wings=2": (
        "Error in call to target 'toast_cli.models.factory.load': TypeError(\"load() got an unexpected keyword argument "
        "'wings'\"). See toast run --help for the settings and toast list for the options."
    ),
    "run model=[false]": (
        "A group of settings was given no name: write model=<name>, data=<name> and so on; see toast list for the names."
    ),
    "run ~model=false": (
        "A group of settings was given no name: write model=<name>, data=<name> and so on; see toast list for the names."
    ),
    "run model=timm": (
        "MissingMandatoryValue while resolving interpolation: Missing mandatory value: model.name. See toast run "
        "--help for the settings and toast list for the options."
    ),
    "run model.name=vit_smal_patch16_224": "model.name=vit_smal_patch16_224 is not known to timm …",
    "run model.pretrained=no": (
        "model.pretrained=no is neither true nor false: write model.pretrained=true or model.pretrained=false."
    ),
    "run model.image_size=[8,8]": (
        "model.image_size=[8, 8] is not a size: give a whole number of pixels, or null for the model's own."
    ),
    "run model.options=3": "model.options=3 are no arguments: write model.options={depth:6}, or {} for none.",
    "run model.options.depth=x": (
        "timm cannot build vit_tiny_patch16_224 with {'patch_size': 2, 'embed_dim': 64, 'depth': 'x', "
        "'num_heads': 4, 'num_classes': 0, 'img_size': 8}: unsupported operand type(s) for +: 'int' and 'str'; "
        "check model.image_size and model.options."
    ),
    "run model.label=null": "model.label=None is not a name: choose model=<name>, see toast list, or give text that names yours.",
    "run data.label=[a]": "data.label=['a'] is not a name: choose data=<name>, see toast list, or give text that names yours.",
    "run ~data": "data.label=None is not a name: choose data=<name>, see toast list, or give text that names yours.",
    "run ~probe": "probe was taken out: leave it in, toast run --help shows its default.",
    "run data.config=nope": "data.config=nope is not known for the digits: use null, or inverted for dark on light.",
    "run translator._target_=3": "translator._target_=3 is not a name: choose translator=<name>, see toast list, or give text that names yours.",
    "run readout=papr": (
        "readout=papr is not known (did you mean paper?): use model (its own pooling), or paper (a random dense "
        "layer and tanh behind it, for ViT and DeiT)."
    ),
    "run fit=3": "fit=3 takes the place of a group: set fit.sequential.",
    "run fit.sequential=yes": (
        "fit.sequential=yes is neither true nor false: write fit.sequential=true or fit.sequential=false."
    ),
    "run seeds=[0,x]": "seeds=[0, 'x'] is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].",
    "run seeds=[]": "seeds=[] is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].",
    "run seeds={a:1}": (
        "seeds={a:1} is of another kind than the setting it is for: see toast run --help for what that looks like."
    ),
    "run data.fit_images=nan": (
        "data.fit_images=nan cannot be had: give a whole number from 1 to 1437, the images of that split."
    ),
    "run data.train_images=1e2": (
        "data.train_images=100.0 cannot be had: give a whole number from 1 to 1437, the images of that split."
    ),
    "run data.streaming=x": (
        "data.streaming=x is neither true nor false: write data.streaming=true or data.streaming=false."
    ),
    "run data.skip_bad_images=off": (
        "data.skip_bad_images=off is neither true nor false: write data.skip_bad_images=true or "
        "data.skip_bad_images=false."
    ),
    "run data.seed=null": "data.seed=None is not a seed: use a whole number from 0.",
    "run data.fit_order=null": "data.fit_order=None is not an order: use random or first.",
    "run data.train_split=nope": (
        "scikit-learn has no split 'nope' (it has train, test): set data.train_split or data.test_split."
    ),
    "run precision=fp8": "precision=fp8 is not a precision: use auto, fp32, bf16.",
    "run device=tpu": "device=tpu is not to be had: this machine has …",
    "run batch_size=0": "batch_size=0 is not a number of images: use auto or a whole number from 1.",
    "run workers=-1": "workers=-1 is not a number of processes: use auto or a whole number from 0.",
    "run fail_fast=null": "fail_fast=None is neither true nor false: write fail_fast=true or fail_fast=false.",
    "run features_from=nowhere": (
        "features_from=nowhere holds no features: give the folder of a run that was made with keep_features=true."
    ),
    "run translator._target_=mine.Mine": (
        "Error locating target 'mine.Mine'. See toast run --help for the settings and toast list for the options."
    ),
    "run translator._target_=builtins.dict": (
        "translator=dict is not a translator: derive it from toast_cli.translators.Translator."
    ),
    "run probe.learning_rate=nan": "probe.learning_rate=nan cannot be used: give a number above 0.",
    "run probe.epochs=1.5": "probe.epochs=1.5 cannot be used: give a whole number above 0.",
    "run probe=mlp probe.weight_decay=-1": "probe.weight_decay=-1 cannot be used: give a number from 0.",
    "run probe=mlp probe.dropout=1": "probe.dropout=1 cannot be used: give a share from 0 to below 1.",
    "run probe=knn probe.temperature=inf": (
        "probe.neighbours=20 with probe.temperature=inf cannot be used: give a whole number from 1 and a number "
        "above 0."
    ),
    "run probe=logistic probe.strengths=1": (
        "probe.strengths=1 cannot be used: give a list of numbers above 0, such as [1e-3,1e-2]."
    ),
    "run translator.solver=exat": (
        "translator.solver=exat is not a solver (did you mean exact?): use exact, or gelsy for what "
        "torch.linalg.lstsq does on CPUs."
    ),
    "run translator.tokens=shard": (
        "translator.tokens=shard is not known (did you mean shared?): use shared (one map for all tokens), split "
        "(one for class and register tokens, one for patches) or per_position."
    ),
    "run translator=lowrank translator.rank=1.5": (
        "translator.rank=1.5 cannot be used: give a whole number of directions from 1, or a share of variance "
        "such as 0.99."
    ),
    "run translator=ridge translator.strengths=[nan]": (
        "translator.strengths=[nan] cannot be used: give a list of numbers above 0, such as [1e-4,1e-2]."
    ),
    "run translator=mlp translator.learning_rate=inf": (
        "translator.learning_rate=inf with translator.steps=300 cannot be used: give a number above 0 and a whole "
        "number from 1."
    ),
    "run translator=deep_mlp translator.seed=x": "translator.seed=x is not a seed: use a whole number from 0.",
}

OTHER_SETTINGS = {
    "search spans=[9-11]": (
        "spans=['9-11'] is not for toast search, which finds the spans: leave it out, or use toast run."
    ),
    "search budget.blocks=12": "budget.blocks=12 cannot be used: give a whole number from 1 to 11.",
    "search budget.gflops=nan": "budget.gflops=nan cannot be used: give a share between 0 and 1, such as 0.75.",
    "search budget=null": (
        "budget=None takes the place of a group: set budget.blocks, budget.params, budget.gflops, budget.latency."
    ),
    "search target.accuracy_drop=0.01 budget.gflops=0.5": (
        "target.accuracy_drop and a budget are two questions: give one of them."
    ),
    "search search.beside=[mlp]": (
        "A plan names the translator 'mlp' next to translator=linear: only closed forms can be mixed, such as linear "
        "and identity."
    ),
    "search search.beam=true": "search.beam=True cannot be used: give a whole number from 1.",
    "search search=3": (
        "search=3 takes the place of a group: set search.beside, search.blocks, search.images, search.beam, "
        "search.rounds."
    ),
    "search +search.wings=1": (
        "search.wings is not a setting: use one of search.beside, search.blocks, search.images, search.beam, "
        "search.rounds."
    ),
    "search data.fit_images=[10,20]": (
        "data.fit_images=[10, 20] are several numbers, and toast search fits its maps once: give one, such as 500."
    ),
    "similarity spans=late": (
        "span 'late' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2."
    ),
    "finetune spans=[9-11,2-3]": (
        "toast finetune takes one plan, one number of data.fit_images, and a linear probe that its head starts "
        "from: give spans=[9-11] data.fit_images=500 probe=linear."
    ),
    "finetune tune.epochs=0": "tune.epochs=0 cannot be used: give a whole number from 1.",
    "finetune tune.learning_rate=inf": "tune.learning_rate=inf cannot be used: give a number above 0.",
    "finetune tune.clip_norm=null": "tune.clip_norm=None cannot be used: give a number above 0.",
    "finetune tune.train_maps=no": (
        "tune.train_maps=no is neither true nor false: write tune.train_maps=true or tune.train_maps=false."
    ),
    "bench spans=[9-11:nope]": (
        "translator=nope is not known: use one of affine, deep_mlp, identity, linear, lowrank, mlp, orthogonal, ridge, "
        "shift."
    ),
    "run fit_data.path=nowhere": "fit_data.path=nowhere needs a data set: add fit_data=folder or another.",
    "bench seconds=nan": "seconds=nan is not a time to measure for: use a number above 0, such as seconds=5.",
    "export nowhere format=onx": ("format=onx is not known (did you mean onnx?): use safetensors, onnx, torch_export."),
    "export nowhere seed=-1": "seed=-1 cannot be used: give a whole number from 0.",
    "export nowhere format=onnx dtype=bf16": "format=onnx has no runtime for dtype=bf16: use fp32, fp16.",
}

SPANS = {
    "run spans=[]": "spans is empty: use all, single or a list of plans such as [9-11,2-3+9-11].",
    "run spans=9-11,2-3": (
        "spans=9-11,2-3 has several values: write spans=[9-11,2-3] for a list, or toast run -m for a run with each."
    ),
    "run spans=[9-11": (
        "no viable alternative at input '[9-11'. See toast run --help for the settings and toast list for the options."
    ),
    "run spans=11-9": "span 11-9 must start before it ends: write s-e with s < e, or stem-e.",
    "run spans=9-12": "span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.",
    "run spans=[2-5+4-6]": "spans 2-5 and 4-6 overlap: the spans of one plan must be disjoint, such as 2-3+9-11.",
    "run \"spans=['２-３']\"": (
        "span '２-３' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2."
    ),
    "run spans=[9-11:lnear]": (
        "translator=lnear is not known (did you mean linear?): use one of affine, deep_mlp, identity, linear, lowrank, "
        "mlp, orthogonal, ridge, shift."
    ),
    "run spans=1-99999999999999999999": (
        "span '1-99999999999999999999' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2."
    ),
}

PATHS = {
    "run hydra.run.dir=/dev/null/x": (
        "Not a directory (/dev/null/x): check that path, or give another place with hydra.run.dir=<dir>, for an export "
        "with out=<dir>; what is finished is kept, and the same command goes on from there."
    ),
    "run data.path=nowhere": (
        "data.path=nowhere is not a folder: give one with an image folder, parquet files or a saved data set."
    ),
    "run data=folder": (
        "data=folder has no data.path: give data.path=<dir> with an image folder, parquet files or a saved data set."
    ),
    'export "it\'s here"': (
        "it's here is not a complete run: give the folder of a finished toast run, search or finetune."
    ),
    "report nowhere": "nowhere is not a folder: give folders of runs, or one that holds them, such as outputs/run.",
    "report .": "No complete run lies in .: give folders that toast run, similarity or finetune wrote.",
    "export nowhere": "nowhere is not a complete run: give the folder of a finished toast run, search or finetune.",
    "status nowhere": "There is no run in nowhere: name the folders that runs are in, such as outputs.",
}

CHECKPOINTS = {
    "run model.checkpoint=@nan.safetensors": (
        "model.checkpoint=nan.safetensors has weights that are not finite numbers in blocks.3.mlp.fc1.weight: fetch "
        "or copy it anew."
    ),
    "run model.checkpoint=@inf.safetensors": (
        "model.checkpoint=inf.safetensors has weights that are not finite numbers in blocks.3.mlp.fc1.weight: fetch "
        "or copy it anew."
    ),
    "run model.checkpoint=nowhere.safetensors": (
        "model.checkpoint=nowhere.safetensors is not a file: give the path of a safetensors or torch weights file."
    ),
    "run model.checkpoint=pkg://nowhere/x": (
        "model.checkpoint=pkg://nowhere/x names no installed package: write pkg://<package>/<file>."
    ),
    "run model.checkpoint=@folder.safetensors": (
        "model.checkpoint=folder.safetensors is not a file: give the path of a safetensors or torch weights file."
    ),
    "run model.checkpoint=@empty.safetensors": (
        "model.checkpoint=empty.safetensors cannot be read as weights (SafetensorError): it must be a safetensors "
        "file, or a torch file that holds nothing but tensors (toast executes no pickle)."
    ),
    "run model.checkpoint=@cut.safetensors": (
        "model.checkpoint=cut.safetensors cannot be read as weights (SafetensorError): it must be a safetensors "
        "file, or a torch file that holds nothing but tensors (toast executes no pickle)."
    ),
    "run model.checkpoint=@other.safetensors": (
        "model.checkpoint=other.safetensors does not fit the model (150 weights are missing, such as cls_token; 1 "
        "are unknown, such as conv.weight): choose the model it was saved from."
    ),
    "run model.checkpoint=@payload.pt": "model.checkpoint=payload.pt cannot be read as weights (…",
    "run model.checkpoint=@payload.pkl": "model.checkpoint=payload.pkl cannot be read as weights (…",
    "run model.checkpoint=@class.pt": "model.checkpoint=class.pt cannot be read as weights (…",
}

DATA_SETS = {
    "run data=folder data.fit_images=2 data.path=@hollow": (
        'data.path=hollow has an empty split (Instruction "train" corresponds to no data!): it must hold at least '
        "one image."
    ),
    "run data=folder data.fit_images=2 data.path=@one_class": (
        "The data set's columns are image (Image), of which 0 are marked as label: name one with "
        "data.label_column; image folders need two classes or more in every split."
    ),
    "run data=folder data.fit_images=2 data.path=@no_test": (
        "data.path=no_test has no split 'test': toast looks for test.parquet, a folder test/<class>/ of images or "
        "a saved data set; set data.train_split or data.test_split if yours is named otherwise."
    ),
    "run data=folder data.fit_images=2 data.path=@good data.train_images=13": (
        "data.train_images=13 cannot be had: give a whole number from 1 to 4, the images of that split."
    ),
    "run data=folder data.fit_images=2 data.path=@floats data.label_column=label": (
        "data.label_column=label holds Value('float64'), not classes: name a column of class labels, integers or "
        "strings."
    ),
    "run data=folder data.fit_images=2 data.path=@gaps data.label_column=label": (
        "data.label_column=label is empty in 1 of 4 rows: give these a label or leave them out."
    ),
    "run data=folder data.fit_images=2 data.path=@no_images data.label_column=label": (
        "The data set's columns are x (Value), label (Value), of which 0 are marked as image: name one with "
        "data.image_column."
    ),
    "run data=folder data.fit_images=2 data.path=@cut_off": (
        "data.path=cut_off cannot be read as a data set: Parquet magic bytes not found in footer. Either the file "
        "is corrupted or this is not a parquet file."
    ),
    "run data=folder data.fit_images=2 data.path=@minus": (
        "Split 'train' has the label -1 for 1 of its 4 images, outside the 2 classes of split 'train': choose a "
        "labelled split with data.train_split or data.test_split."
    ),
    "run data=folder data.fit_images=2 data.path=@shard": (
        "data.path=shard cannot be read as a data set: [Errno 2] No such file or directory: "
        "'{here}/shard/train/data-00000-of-00001.arrow'"
    ),
    "run data=folder data.fit_images=2 data.path=@new_class": (
        "Split 'test' has the label z for 2 of its 4 images, outside the 2 classes of split 'train': choose a "
        "labelled split with data.train_split or data.test_split."
    ),
}

HUB = {
    "run data=mnist": (
        "ylecun/mnist could not be fetched from the hub (ConnectionError: Couldn't reach 'ylecun/mnist' on the "
        "Hub (OfflineModeIsEnabled)): give data.path=<dir> with a copy, or set HF_HOME to a cache that holds it."
    ),
    "run model=vit_s": (
        "The weights of vit_small_patch16_224.augreg_in21k_ft_in1k could not be fetched from the hub "
        "(LocalEntryNotFoundError): give model.checkpoint=<file>, set HF_HOME to a cache that holds them, or try "
        "the pipeline with model.pretrained=false."
    ),
}

EXPORTS_AND_REPORTS = {
    "predict @export nowhere.png": "nowhere.png does not exist: give image files or folders of images.",
    "predict @export @void": "void holds no image files: give others.",
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
        "rehashed/recipe.json does not describe model.safetensors (Error while deserializing: header too large): "
        "export the model again."
    ),
    "report @older": (
        "{here}/older/results.csv has other columns than this version of toast writes: move it away, or use fresh=true."
    ),
    "report @half_written": (
        "Line 2 of {here}/half_written/results.csv cannot be read: restore the file, or use fresh=true."
    ),
    "report @no_rows": "{here}/no_rows/results.csv has no rows: restore the file, or use fresh=true.",
    "report @cut_record": (
        "{here}/cut_record/run.json cannot be read (JSONDecodeError): restore it, or move its folder away."
    ),
    "report @bad_config": (
        "{here}/bad_config/config.yaml cannot be read (ParserError): restore it, or move its folder away."
    ),
    "export @older": (
        "older/results.csv has other columns than this version of toast writes: move it away, or use fresh=true."
    ),
    "export @no_rows": "no_rows holds no rows: restore its results.csv, or run it again with fresh=true.",
    "status @cut_record": (
        "cut_record/run.json cannot be read (JSONDecodeError): restore it, or move its folder away."
    ),
}
BAD = COMMANDS | SETTINGS | OTHER_SETTINGS | SPANS | PATHS | CHECKPOINTS | DATA_SETS | HUB | EXPORTS_AND_REPORTS


@pytest.fixture(autouse=True)
def _built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm takes longer to build the embedded model than most commands take to fail."""

    def create(*arguments: object) -> models.Vit:
        key = repr(arguments)
        if key not in _built:
            _built[key] = build(*arguments)
        return copy.deepcopy(_built[key])

    build = models._create
    monkeypatch.setattr(models, "_create", create)


_built: dict[str, models.Vit] = {}


@pytest.mark.parametrize("command", BAD)
def test_one_line_says_what_is_wrong(command: str, toast: Toast, inputs: Path, tmp_path: Path, monkeypatch):
    expected, here = BAD[command], tmp_path
    if "@" in command:
        here = inputs
        monkeypatch.chdir(inputs)
    before = set(here.rglob("*"))
    status, out, err = toast(*shlex.split(command.replace("@", "")))
    expected = f"toast: {expected.replace('{here}', str(here))}"
    assert err.count("\n") == 1, err
    assert err.startswith(expected[:-1]) if expected.endswith("…") else err == f"{expected}\n"
    assert (status, out) == (1, "")
    left = {path.relative_to(here) for path in set(here.rglob("*")) - before}
    assert all(path.parts[0] == "outputs" and len(path.parts) < 3 for path in left), "where runs lie, but none of them"
    shutil.rmtree(here / "outputs", ignore_errors=True)
    assert not (inputs / "executed").exists()


# What only shows when numbers are computed or images are decoded: a run has begun then, and says so before it says this.
STOPPED = {
    "finetune data.train_images=1 spans=9-11": (
        "toast finetune holds out train images to choose the epoch, and there is one: use data.train_images=2 or more."
    ),
    "run data=folder data.path=@all_empty data.fit_images=2 spans=none data.skip_bad_images=true": (
        "None of the train or none of the test images can be decoded: mend them or name another data.path."
    ),
    "run data=folder data.path=@all_empty data.fit_images=2 spans=[9-11] data.skip_bad_images=true": (
        "None of the fit images can be decoded: mend them, or draw others with data.seed."
    ),
    "predict @export @text.png": "None of the 1 files is an image that can be decoded.",
    "report @incomplete": (
        "No complete run lies in incomplete: give folders that toast run, similarity or finetune wrote."
    ),
}


@pytest.mark.parametrize("command", STOPPED)
def test_the_last_line_says_why_it_stopped(command: str, toast: Toast, inputs: Path, monkeypatch, tmp_path):
    monkeypatch.chdir(inputs)
    elsewhere = [f"hydra.run.dir={tmp_path / 'run'}"] if command.startswith(("run", "finetune")) else []
    status, out, err = toast(*shlex.split(command.replace("@", "")), *elsewhere)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == f"toast: {STOPPED[command]}"
    assert "Traceback" not in err


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG", quality=90)
    path.write_bytes(path.read_bytes()[:2000])


def _bomb(path: Path) -> None:
    """A PNG of a few bytes that says it is 20 000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    framed = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


BAD_IMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no bytes": ("0.png", lambda p: p.write_bytes(b""), "cannot identify image file"),
    "noise": ("0.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40), "*"),
    "truncated JPEG": ("0.jpg", _truncated, "*"),
    "text": ("0.png", lambda p: p.write_text("no picture"), "cannot identify image file"),
    "SVG": ("0.png", lambda p: p.write_text("<svg/>"), "cannot identify image file"),
    "decompression bomb": (
        "0.png",
        _bomb,
        "Image size (400000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack.",
    ),
    "floats": (
        "0.tif",
        lambda p: Image.fromarray(np.ones((8, 8), np.float32)).save(p),
        "its pixels are of mode F, whose range is not fixed",
    ),
}


def one_image(root: Path, name: str, write: Callable[[Path], object]) -> list[str]:
    """A set of eight images, the first of them written by ``write``; the command that runs it."""
    save_image_folder(root, per_class=2)
    (root / "train" / "kind0" / "0.png").unlink()
    write(root / "train" / "kind0" / name)
    small = ["data.fit_images=4", "spans=[9-11]", "probe.epochs=1", "device=cpu", "hydra.run.dir=run"]
    return ["run", "data=folder", f"data.path={root}", *small]


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_named(kind: str, toast: Toast, tmp_path):
    name, write, reason = BAD_IMAGES[kind]
    command = one_image(tmp_path / "set", name, write)
    status, out, err = toast(*command)
    assert (status, out) == (1, "")
    begin = f"toast: train image 0 ({tmp_path}/set/train/kind0/{name}) cannot be decoded ("
    end = "): mend or remove it, or set data.skip_bad_images=true to leave such images out."
    last = err.splitlines()[-1]
    assert (last.startswith(begin) and last.endswith(end)) if reason == "*" else last == begin + reason + end


def _palette(path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 4, "P")
    image.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180, 255, 0, 0])
    image.save(path, bits=2, transparency=b"\0\x80\xff\xff")


def _animated(path: Path) -> None:
    Image.new("L", (8, 8), 30).save(path, save_all=True, append_images=[Image.new("L", (8, 8), 200)])


GOOD_IMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "animated GIF": ("0.gif", _animated),
    "CMYK JPEG": ("0.jpg", lambda p: Image.new("CMYK", (8, 8), (9, 80, 3, 1)).save(p)),
    "16-bit PNG": ("0.png", lambda p: Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(p)),
    "1 x 1": ("0.png", lambda p: Image.new("RGB", (1, 1)).save(p)),
    "2-bit palette with transparency": ("0.png", _palette),
}


@pytest.mark.parametrize("kind", GOOD_IMAGES)
def test_an_unusual_image_runs(kind: str, toast: Toast, tmp_path):
    status, _, err = toast(*one_image(tmp_path / "set", *GOOD_IMAGES[kind]))
    assert status == 0, err
    rows = read_csv(tmp_path / "run" / "results.csv", Row)
    assert [row.plan for row in rows] == ["none", "9-11"]
    assert all(row.train_images == 4 and np.isfinite([row.accuracy, row.fit_r2 or 0]).all() for row in rows)


def test_of_an_animation_the_first_frame_is_seen(tmp_path):
    from toast_cli.data.images import to_rgb

    _animated(tmp_path / "it.gif")
    with Image.open(tmp_path / "it.gif") as image:
        assert np.unique(np.asarray(to_rgb(image))).tolist() == [30]


def test_a_hub_cache_that_cannot_be_is_named(toast: Toast, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/dev/null/cache")
    status, out, err = toast("run", "model=vit_s")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(
        "toast: The weights of vit_small_patch16_224.augreg_in21k_ft_in1k could not be fetched from the hub ("
    )
    assert "set HF_HOME to a cache that holds them" in err


def test_a_number_of_processes_that_is_none(toast: Toast, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "many")
    sentence = "toast: WORLD_SIZE=many is not a number of processes: unset it, or start them with torchrun.\n"
    assert toast("run") == (1, "", sentence)


class Payload:
    """Unpickled, it would leave a file."""

    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """All that the commands of the tables read."""
    root = tmp_path_factory.mktemp("inputs")
    for make in (_checkpoints, _data_sets, _exports, _reports):
        make(root)
    return root


def _checkpoints(root: Path) -> None:
    file = models.checkpoint_path("pkg://toast_cli/weights/digits_vit.safetensors")
    weights, name = load_file(file), "blocks.3.mlp.fc1.weight"
    (root / "folder.safetensors").mkdir()
    (root / "empty.safetensors").touch()
    (root / "words.safetensors").write_text("weights\n" * 99)
    (root / "cut.safetensors").write_bytes(file.read_bytes()[:-999])
    (root / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    save_file({"conv.weight": torch.ones(3)}, root / "other.safetensors")
    torch.save(Payload(), root / "payload.pt")
    (root / "payload.pkl").write_bytes(pickle.dumps(Payload()))
    torch.save(torch.nn.Linear(1, 1), root / "class.pt")
    torch.save([1, 2], root / "list.pt")
    for value in ("nan", "inf"):
        bad = weights[name].clone()
        bad[0, 0] = float(value)
        save_file({**weights, name: bad}, root / f"{value}.safetensors")


def _data_sets(root: Path) -> None:
    good = save_image_folder(root / "good", per_class=2)
    (root / "void").mkdir()
    (root / "file").touch()
    for split in ("train", "test"):
        (root / "hollow" / split).mkdir(parents=True)
    for name, gone in (
        ("one_class", ["train/kind1", "test/kind1"]),
        ("missing_in_train", ["train/kind1"]),
        ("no_test", ["test"]),
    ):
        shutil.copytree(good, root / name)
        for folder in gone:
            shutil.rmtree(root / name / folder)
    shutil.copytree(good, root / "all_empty")
    for image in (root / "all_empty").rglob("*.png"):
        image.write_bytes(b"")
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    png = buffer.getvalue()
    for name, columns in (
        ("floats", {"image": [png] * 4, "label": [0.5, 1.5, 0.5, 1.5]}),
        ("gaps", {"image": [png] * 4, "label": ["a", None, "b", "a"]}),
        ("no_images", {"x": [1, 2, 3, 4], "label": [0, 1, 0, 1]}),
        ("cut_off", {"image": [png] * 4, "label": [0, 1, 0, 1]}),
    ):
        (root / name).mkdir()
        for split in ("train", "test"):
            pd.DataFrame(columns).to_parquet(root / name / f"{split}.parquet")
    for file in (root / "cut_off").iterdir():
        file.write_bytes(file.read_bytes()[:-50])
    for name, labels, test in (
        ("minus", [-1, 0, 1, 0], ["a", "b"]),
        ("shard", [0, 1, 1, 0], ["a", "b"]),
        ("new_class", [0, 1, 1, 0], ["a", "z"]),
    ):
        for split, names in (("train", ["a", "b"]), ("test", test)):
            features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
            pictures = [Image.new("RGB", (4, 4))] * 4
            rows = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
            rows.save_to_disk(str(root / name / split))
    for file in (root / "shard" / "train").glob("*.arrow"):
        file.unlink()


def _exports(root: Path) -> None:
    good = root / "export"
    good.mkdir()
    saved(good, tiny())
    seen = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": [0.5] * 3, "std": [0.5] * 3}
    damage(good, lambda recipe: recipe["pretrained_cfg"].update(seen, label_names=list("abcde")))
    weights = b"\xff" * 8 + (good / WEIGHTS).read_bytes()[8:]
    rehashed = {"weights": hashlib.sha256(weights).hexdigest()}
    for name, change in (
        ("cut_recipe", lambda p: (p / RECIPE).write_text((p / RECIPE).read_text()[:90])),
        ("list_recipe", lambda p: (p / RECIPE).write_text("[]")),
        ("outside", lambda p: damage(p, lambda r: r.update(file="../../x"))),
        ("no_crop", lambda p: damage(p, lambda r: r["pretrained_cfg"].pop("crop_pct"))),
        ("headless", lambda p: damage(p, lambda r: r.update(pretrained_cfg=3))),
        ("tampered", lambda p: (p / WEIGHTS).write_bytes(weights)),
        ("rehashed", lambda p: ((p / WEIGHTS).write_bytes(weights), damage(p, lambda r: r.update(rehashed)))),
    ):
        shutil.copytree(good, root / name)
        change(root / name)
    Image.new("RGB", (8, 8)).save(root / "photo.png")
    (root / "text.png").write_text("no picture")


def _reports(root: Path) -> None:
    """Runs that say they are complete, with other things in their files."""
    head = ",".join(field.name for field in dataclasses.fields(Row))
    line = ",".join("1" for _ in dataclasses.fields(Row))
    for name, files in (
        ("older", {"results.csv": "model,data\na,b\n"}),
        ("half_written", {"results.csv": f"{head}\na,b,c\n"}),
        ("no_rows", {"results.csv": f"{head}\n"}),
        ("cut_record", {"results.csv": f"{head}\n", "run.json": '{"compl'}),
        ("bad_config", {"results.csv": f"{head}\n{line}\n", "config.yaml": "a: [1"}),
        ("incomplete", {"results.csv": f"{head}\n", "run.json": "{}"}),
    ):
        (root / name).mkdir()
        for file, text in {"run.json": json.dumps({"complete": True}), "config.yaml": "model: {}\n", **files}.items():
            (root / name / file).write_text(text)
