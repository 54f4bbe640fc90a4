"""Spans and plans that cannot be read, or that the model or the verb does not take."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "search spans=[9-11]": (
        "spans=['9-11'] is not for toast search, which finds the spans: leave it out, or use toast run."
    ),
    "similarity spans=late": (
        "span 'late' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2; 8-9a is block 9's attention alone."
    ),
    "finetune spans=[9-11,2-3]": (
        "toast finetune takes one plan, one number of data.fit_images, and a linear probe that its head starts "
        "from: give spans=[9-11] data.fit_images=500 probe=linear."
    ),
    "bench spans=[9-11:nope]": (
        "translator=nope is not known: use one of affine, context, deep_mlp, identity, linear, lowrank, mlp, orthogonal, ridge, "
        "shift."
    ),
    "run spans=[]": "spans is empty: use all, single or a list of plans such as [9-11,2-3+9-11].",
    "run spans=9-11,2-3": (
        "spans=9-11,2-3 has several values: write spans=[9-11,2-3] for a list, or toast run -m for a run with each."
    ),
    "run spans=[9-11": (
        "spans=[9-11 cannot be read: close its brackets and quotes, and put text with other signs in quotes of its own, such as \"key='a (b)'\"."
    ),
    "run spans=11-9": "span 11-9 must start before it ends: write s-e with s < e, or stem-e.",
    "run spans=9-12": "span 9-12 ends at block 12, but the model's 12 blocks are 0 to 11.",
    "run spans=[2-5+4-6]": "spans 2-5 and 4-6 overlap: the spans of one plan must be disjoint, such as 2-3+9-11.",
    "run \"spans=['２-３']\"": (
        "span '２-３' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2; 8-9a is block 9's attention alone."
    ),
    "run spans=[9-11:lnear]": (
        "translator=lnear is not known (did you mean linear?): use one of affine, context, deep_mlp, identity, linear, lowrank, "
        "mlp, orthogonal, ridge, shift."
    ),
    "run spans=1-99999999999999999999": (
        "span '1-99999999999999999999' is not understood: write s-e (blocks s+1 to e leave), such as 9-11 or stem-2; 8-9a is block 9's attention alone."
    ),
}


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])
