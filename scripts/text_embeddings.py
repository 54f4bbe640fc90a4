"""Make the file of text embeddings that probe=zero_shot reads, with OpenCLIP's text towers: pip install open_clip_torch.

    python scripts/text_embeddings.py ViT-B-16-quickgelu openai text.safetensors --run outputs/run/<a run on the same data>
    python scripts/text_embeddings.py ViT-B-16-SigLIP webli text.safetensors --classes classes.json
    python scripts/text_embeddings.py ViT-B-16 laion2b_s34b_b88k text.safetensors --imagenet

The first two words are OpenCLIP's names of the model and its weights (open_clip.list_pretrained()), which must be those of the image
tower in model.name. Classes are those that a run of toast has recorded, or a JSON file: a list of names, or an object from names to the
words that stand for them in a sentence. --imagenet writes WordNet ids, with OpenCLIP's words for them. The sentences are
OpenCLIP's 80 for ImageNet, or those given by --template, such as "a photo of a {}.". Their embeddings are averaged as Radford et al. (2021) do:
each is brought to length 1, and so is their mean.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from toast_cli.models.imagenet import ids_of_outputs
from toast_cli.probes.texts import CLASSES, SCALE, TEXT


def phrases_of(args: argparse.Namespace) -> dict[str, str]:
    """What each class is called in a sentence, by its name in the data set."""
    if args.imagenet:
        import open_clip

        return dict(zip(ids_of_outputs(1000), open_clip.IMAGENET_CLASSNAMES, strict=True))
    found: Any = json.loads((args.run / "run.json" if args.run else args.classes).read_text(encoding="utf-8"))
    names = found["classes"] if args.run else found
    return names if isinstance(names, dict) else {name: name.replace("_", " ") for name in names}


@torch.inference_mode()
def embeddings(model: Any, tokenizer: Any, phrases: Sequence[str], sentences: Sequence[Any]) -> torch.Tensor:
    """One direction (C, E) for each of the C ``phrases``, the mean over ``sentences``, which are templates or functions of a phrase."""
    rows = []
    for number, phrase in enumerate(phrases, start=1):
        prompts = [each.format(phrase) if isinstance(each, str) else each(phrase) for each in sentences]
        rows.append(model.encode_text(tokenizer(prompts), normalize=True).float().mean(dim=0))  # (E,)
        print(f"\r{number} of {len(phrases)} classes", end="", flush=True)
    print()
    return F.normalize(torch.stack(rows), dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="OpenCLIP's name of the model")
    parser.add_argument("weights", help="OpenCLIP's name of its weights")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument("--run", type=Path, help="the folder of a run of toast on the same data")
    classes.add_argument("--classes", type=Path, help="a JSON file of class names")
    classes.add_argument("--imagenet", action="store_true", help="ImageNet-1k's classes by WordNet id")
    parser.add_argument(
        "--template", action="append", help="a sentence with {} for the class; may be given several times"
    )
    args = parser.parse_args()

    import open_clip

    model = open_clip.create_model(args.model, pretrained=args.weights, require_pretrained=True).eval()
    phrases = phrases_of(args)
    sentences = args.template or open_clip.OPENAI_IMAGENET_TEMPLATES
    text = embeddings(model, open_clip.get_tokenizer(args.model), list(phrases.values()), sentences)
    tensors = {TEXT: text.contiguous(), SCALE: model.logit_scale.detach().exp().float().reshape(1)}
    save_file(tensors, args.out, metadata={CLASSES: json.dumps(list(phrases))})
    print(f"{args.out}: {tuple(text.shape)}")


if __name__ == "__main__":
    main()
