"""Settings of a translator, a probe, a search or a fine-tuning, and groups of settings, that cannot be used."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "run translator=lnear": (
        "translator=lnear does not exist (did you mean linear?): use one of affine, context, deep_mlp, identity, "
        "linear, lowrank, mlp, orthogonal, ridge, shift, or --config-dir <dir> with your own."
    ),
    "run probe=svm": (
        "probe=svm does not exist: use one of knn, linear, logistic, mlp, pretrained_head, zero_shot, or --config-dir <dir> "
        "with your own."
    ),
    "run experiment=smoke": (
        "experiment=smoke does not exist (did you mean smoke/main?): use one of paper/crosscheck_deit_b, "
        "paper/crosscheck_deit_s, paper/crosscheck_deit_s_cifar100, paper/crosscheck_dinov2_b_cifar100, paper/crosscheck_vit_l, …"
    ),
    "run modle=vit_s": (
        "modle is not a setting (did you mean model?): toast run --help lists them, and +modle=vit_s would add one."
    ),
    "run ~probe": "probe is missing: do not remove it; toast run --help shows its default.",
    "run translator._target_=3": "translator._target_=3 is not a name: choose translator=<name>, see toast list, or give text as a name for yours.",
    "run readout=papr": (
        "readout=papr is not known (did you mean paper?): use model (its own pooling), or paper (a random dense "
        "layer and tanh after it, for ViT and DeiT)."
    ),
    "run fit=3": "fit=3 replaces a group of settings: set fit.sequential, fit.heal, fit.held_out_r2.",
    "run fit.held_out_r2=no": (
        "fit.held_out_r2=no is neither true nor false: write fit.held_out_r2=true or fit.held_out_r2=false."
    ),
    "run expected=0.9": "expected=0.9 does not give accuracies: write a fraction for each plan, as in {none: 0.74, 9-11: 0.7}.",
    "run expected={none:74}": (
        "expected={'none': 74} does not give accuracies: write a fraction for each plan, as in {none: 0.74, 9-11: 0.7}."
    ),
    "run expected={last:0.7}": (
        "span 'last' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2; 8-9a is block 9's attention alone."
    ),
    "run fit.sequential=yes": (
        "fit.sequential=yes is neither true nor false: write fit.sequential=true or fit.sequential=false."
    ),
    "run sweep=fast": "sweep=fast does not exist: use one of full, race, or --config-dir <dir> with your own.",
    "run sweep.keep=1": "sweep.keep is a setting of sweep=race: choose that too, or leave it out.",
    "run probe.strengths=[1]": "probe.strengths is a setting of probe=logistic: choose that too, or leave it out.",
    "run sweep=race sweep.test_images=0": "sweep.test_images=0 cannot be used: give a whole number from 1.",
    "run sweep=race sweep.confidence=1": (
        "sweep.confidence=1 cannot be used: give a share between 0 and 1, such as 0.95."
    ),
    "run sweep=race sweep.keep=0": "sweep.keep=0 cannot be used: give a share above 0 and up to 1, such as 0.5.",
    "run sweep=race keep_features=true": (
        "keep_features and features_from are not for sweep=race, whose plans have features of different images: leave "
        "them out, or use sweep=full."
    ),
    "run seeds=[0,x]": "seeds=[0, 'x'] is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].",
    "run seeds=[]": "seeds=[] is not a list of seeds: use whole numbers from 0, such as seeds=[0,1,2].",
    "run seeds={a:1}": (
        "seeds={a:1} is not the kind of value that this setting takes: see toast run --help for what it looks like."
    ),
    "run precision=fp8": "precision=fp8 is not a precision: use auto, fp32, bf16.",
    "run batch_size=0": "batch_size=0 is not a number of images: use auto or a whole number from 1.",
    "run workers=-1": "workers=-1 is not a number of processes: use auto or a whole number from 0.",
    "run fail_fast=null": "fail_fast=None is neither true nor false: write fail_fast=true or fail_fast=false.",
    "run translator._target_=mine.Mine": (
        "_target_=mine.Mine cannot be imported: write <module>.<class>, and name the folder of the module, such as PYTHONPATH=."
    ),
    "run translator._target_=builtins.dict": (
        "translator=dict is not a translator: derive it from toast_cli.translators.Translator."
    ),
    "run probe.learning_rate=nan": "probe.learning_rate=nan cannot be used: give a number above 0.",
    "run probe.epochs=1.5": "probe.epochs=1.5 cannot be used: give a whole number from 1.",
    "run probe=mlp probe.weight_decay=-1": "probe.weight_decay=-1 cannot be used: give a number from 0.",
    "run probe=mlp probe.dropout=1": "probe.dropout=1 cannot be used: give a share from 0 to below 1.",
    "run probe=knn probe.temperature=inf": "probe.temperature=inf cannot be used: give a number above 0.",
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
    "run translator=mlp translator.learning_rate=inf": "translator.learning_rate=inf cannot be used: give a number above 0.",
    "run translator=deep_mlp translator.seed=x": "translator.seed=x is not a seed: use a whole number from 0.",
    "search budget.blocks=12": "budget.blocks=12 cannot be used: give a whole number from 1 to 11.",
    "search budget.gflops=nan": "budget.gflops=nan cannot be used: give a share between 0 and 1, such as 0.75.",
    "search budget=null": (
        "budget=None replaces a group of settings: set budget.blocks, budget.params, budget.gflops, budget.latency."
    ),
    "search target.accuracy_drop=0.01 budget.gflops=0.5": (
        "target.accuracy_drop and a budget are two questions: give one of them."
    ),
    "search search.beside=[mlp]": (
        "A plan names the translator 'mlp' next to translator=linear: only closed forms can be mixed, such as linear "
        "and identity."
    ),
    "search search.beam=true": "search.beam=True cannot be used: give a whole number from 1.",
    "search search.penalty=0": "search.penalty=0 cannot be used: give a number above 0, or null for the one that suits the original best.",
    "search search.penalty=nan": "search.penalty=nan cannot be used: give a number above 0, or null for the one that suits the original best.",
    "search search=3": (
        "search=3 replaces a group of settings: set search.beside, search.blocks, search.images, search.beam, "
        "search.rounds, search.baselines, search.refits, search.halves, search.penalty."
    ),
    "search +search.wings=1": (
        "search.wings is not a setting: use one of search.beside, search.blocks, search.images, search.beam, "
        "search.rounds, search.baselines, search.refits, search.halves, search.penalty."
    ),
    "finetune tune.epochs=0": "tune.epochs=0 cannot be used: give a whole number from 1.",
    "finetune tune.learning_rate=inf": "tune.learning_rate=inf cannot be used: give a number above 0.",
    "finetune tune.clip_norm=null": "tune.clip_norm=None cannot be used: give a number above 0.",
    "finetune tune.train_maps=no": (
        "tune.train_maps=no is neither true nor false: write tune.train_maps=true or tune.train_maps=false."
    ),
    "bench seconds=nan": "seconds=nan is not a time to measure for: use a number above 0, such as seconds=5.",
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])
