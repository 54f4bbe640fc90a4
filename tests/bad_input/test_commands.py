"""Verbs, flags and words that are none."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "fly": (
        "'fly' is not a verb: use run, search, similarity, finetune, export, predict, bench, report, check, "
        "status, doctor, list, or see toast --help."
    ),
    "rn": (
        "'rn' is not a verb (did you mean run?): use run, search, similarity, finetune, export, predict, bench, "
        "report, check, status, doctor, list, or see toast --help."
    ),
    "--wings": "unrecognized arguments: --wings: see toast --help.",
    "run --fresh": (
        "unrecognized arguments: --fresh: settings are written key=value, such as fresh=true; see toast run --help."
    ),
    "run spans": "spans has no value: settings are written key=value, such as spans=all; see toast run --help.",
    "run --config-dir nowhere": (
        "--config-dir {here}/nowhere is not a folder: give one that holds groups such as model/ or data/."
    ),
    "finetune nope": "nope has no value: settings are written key=value, such as spans=all; see toast run --help.",
    "bench data=digits": (
        "data is a setting of other verbs, not of this one: leave it out, or see toast <verb> --help."
    ),
    "export": "toast export needs the folder of a finished run: toast export outputs/run/<run> plan=9-11.",
    "predict": "the following arguments are required: export, images: see toast predict --help.",
    "predict nowhere photo.png --top abc": "argument --top: invalid int value: 'abc': see toast predict --help.",
    "report": "the following arguments are required: folders: see toast report --help.",
    "report . --out": "argument --out: expected one argument: see toast report --help.",
    "list model": (
        "'model' cannot be listed (did you mean models?): use one of models, data, translators, probes, "
        "protocols, sweeps, trackers, experiments."
    ),
    "list models data": "unrecognized arguments: data: see toast list --help.",
    "status --wings": "unrecognized arguments: --wings: see toast status --help.",
    "doctor now": "unrecognized arguments: now: see toast doctor --help.",
    "similarity seeds": "seeds has no value: settings are written key=value, such as spans=all; see toast run --help.",
    "list --config-dir nowhere": (
        "--config-dir nowhere is not a folder: give one that holds groups such as model/ or data/."
    ),
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])
