"""Data sets, their columns, splits and numbers of images."""

import pytest

from tests.bad_input.conftest import Check

SENTENCES = {
    "run data=cifar": (
        "data=cifar does not exist (did you mean cifar10, cifar100?): use one of cifar10, cifar100, "
        "cifar100_coarse, digits, digits_inverted, fashion_mnist, folder, imagenet1k, imagenet_a, imagenet_r, imagenet_v2, mnist, voc, or --config-dir "
        "<dir> with your own."
    ),
    "run data.label=": "data.label= is not a name: choose data=<name>, see toast list, or give text as a name for yours.",
    "run ~data": "data.label=None is not a name: choose data=<name>, see toast list, or give text as a name for yours.",
    "run data.config=nope": "data.config=nope is not known for the digits: use null, or inverted for dark on light.",
    "run data.fit_images=nan": "data.fit_images=nan cannot be used: give a whole number from 1.",
    "run data.fit_images=[10,2000]": (
        "data.fit_images=2000 is not available: give a whole number from 1 to 1437, the images of that split."
    ),
    "run data.train_images=1e2": "data.train_images=100.0 cannot be used: give a whole number from 1.",
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
    "search data.fit_images=[10,20]": (
        "data.fit_images=[10, 20] has several values, but toast search fits its maps once: give one, such as 500."
    ),
    "run fit_data.path=nowhere": "fit_data.path=nowhere needs a data set: add fit_data=folder or another.",
    "run data.path=nowhere": (
        "data.path=nowhere is not a folder: give one with an image folder, parquet files, tar files or a saved data set, or a "
        "pattern such as 'shards/*.tar'."
    ),
    "run data.train_split=null": (
        "data=digits has no train split that fit images could come from: take them from another data set, such as fit_data=imagenet1k or "
        "fit_data=folder fit_data.path=<dir>."
    ),
    "run data.train_split=null fit_data=digits data.fit_images=10": (
        "data=digits has no train images, and probe=linear is trained on some: use probe=pretrained_head or probe=zero_shot, or give data.train_split."
    ),
    "run fit_data=digits fit_data.train_split=null data.fit_images=10": (
        "fit_data=digits has no train split that fit images could come from: take them from another data set, such as fit_data=imagenet1k or "
        "fit_data=folder fit_data.path=<dir>."
    ),
    "run data=imagenet_v2 fit_data=digits": (
        "There is no data.path: give data.path=<dir> with an image folder, parquet files, tar files or a saved data set."
    ),
    "run data=folder": (
        "There is no data.path: give data.path=<dir> with an image folder, parquet files, tar files or a saved data "
        "set."
    ),
    "run data=folder data.fit_images=2 data.path=@hollow": (
        "hollow/train holds no images in class folders (it is empty): put them into train/<class>/."
    ),
    "run data=folder data.fit_images=2 data.path=@one_class": (
        "one_class/train holds images of one class only, kind0: put those of another into train/<class>/."
    ),
    "run data=folder data.fit_images=2 data.path=@no_test": (
        "data.path=no_test has no split 'test' (it has train): toast looks for test.parquet, test-*.tar, a folder test/<class>/ of "
        "images or a saved data set; set data.train_split or data.test_split if yours has another name."
    ),
    "run data=folder data.fit_images=2 data.path=@good data.train_images=13": (
        "data.train_images=13 is not available: give a whole number from 1 to 4, the images of that split."
    ),
    "run data=folder data.fit_images=2 data.path=@floats data.label_column=label": (
        "data.label_column=label holds Value('float64'), not classes: name a column of class labels, whole "
        "numbers, strings or booleans."
    ),
    "run data=folder data.fit_images=2 data.path=@gaps data.label_column=label": (
        "data.label_column=label is empty in 1 of 4 rows: give these rows a label or leave them out."
    ),
    "run data=folder data.fit_images=2 data.path=@no_images data.label_column=label": (
        "The data set's columns are x (Value), label (Value), of which none is marked as image: name one with "
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


@pytest.mark.parametrize("command", SENTENCES)
def test_one_line_says_what_is_wrong(command: str, check_one_line: Check):
    check_one_line(command, SENTENCES[command])


# What only shows when numbers are computed or images are decoded: a run has begun then, and says so before it says this.
STOPPED = {
    "finetune data.train_images=1 spans=9-11": (
        "toast finetune holds out train images to choose the epoch, and there is only one: use data.train_images=2 or more."
    ),
}


@pytest.mark.parametrize("command", STOPPED)
def test_the_last_line_says_why_it_stopped(command: str, check_last_line: Check):
    check_last_line(command, STOPPED[command])
