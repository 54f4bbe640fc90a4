"""Folders of runs that are not there, or whose files were changed."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "run features_from=nowhere": (
        "features_from=nowhere holds no features: give the folder of a run that was made with keep_features=true."
    ),
    "run hydra.run.dir=/dev/null/x": (
        "Not a directory (/dev/null/x): check that path, or give another place with hydra.run.dir=<dir> (for an export: "
        "out=<dir>); what is finished is kept, and the same command goes on from there."
    ),
    'export "it\'s here"': (
        "it's here is not a complete run: give the folder of a finished toast run, search or finetune."
    ),
    "report nowhere": "nowhere is not a folder: give folders of runs, or one that holds them, such as outputs/run.",
    "report .": "There is no complete run in .: give folders that toast run, similarity or finetune wrote.",
    "export nowhere": "nowhere is not a complete run: give the folder of a finished toast run, search or finetune.",
    "status nowhere": "There is no run in nowhere: name the folders that runs are in, such as outputs.",
    "report @older": (
        "{here}/older/results.csv does not have the columns that this version of toast writes: move it away, or use fresh=true."
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
        "older/results.csv does not have the columns that this version of toast writes: move it away, or use fresh=true."
    ),
    "export @no_rows": "no_rows holds no rows: restore its results.csv, or run it again with fresh=true.",
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])


# What only shows when numbers are computed or images are decoded: a run has begun then, and says so before it says this.
STOPPED = {
    "report @incomplete": (
        "There is no complete run in incomplete: give folders that toast run, similarity or finetune wrote."
    ),
}


@pytest.mark.parametrize("command", STOPPED)
def test_the_last_line_says_why_it_stopped(command: str, check_last_line: Check):
    check_last_line(command, STOPPED[command])
