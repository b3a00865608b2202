"""`demo`, `run` and `eval`: use a trained model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[Path, typer.Argument(help="Folder of a bundle, or of a run.")]
AllowImports = Annotated[
    bool, typer.Option("--allow-imports", help="Run the modules that the bundle's recipe imports: trust its author.")
]


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and the picture.")] = Path("demo"),
) -> None:
    """Train, evaluate and talk to a tiny model in three minutes, offline.

    Example: mmunify demo --out demo
    """
    from mmunify.demo import run_demo

    run_demo(out)


def run(
    bundle: BundlePath,
    prompts: Annotated[list[str], typer.Argument(help="What to say; several prompts are several turns.")],
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="Picture of a turn; the second goes with the second prompt.")
    ] = None,
    video: Annotated[list[Path] | None, typer.Option("--video", help="Clip of a turn, likewise.")] = None,
    audio: Annotated[list[Path] | None, typer.Option("--audio", help="Sound of a turn, likewise.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and pictures.")] = Path("answers"),
    allow_imports: AllowImports = False,
) -> None:
    """Talk to a trained model.

    Example: mmunify run runs/unifiedmllm "Segment the red 7." --image scene.png
    """
    from mmunify.checkpoint import load_bundle
    from mmunify.commands.replies import reply_lines
    from mmunify.infer.assistant import Assistant

    given = {"image": image, "video": video, "audio": audio}
    turns = _media_of_turns({kind: files for kind, files in given.items() if files}, len(prompts))
    assistant = Assistant.load(load_bundle(bundle, allow_imports=allow_imports))
    for prompt, media in zip(prompts, turns, strict=True):
        typer.echo(f"> {prompt}" + "".join(f"  [{file}]" for file in media.values()))
        reply = assistant.reply(prompt, image=media.get("image"), video=media.get("video"), audio=media.get("audio"))
        for line in reply_lines(reply, out):
            typer.echo(line)


def _media_of_turns(given: Mapping[str, list[Path]], num_turns: int) -> list[dict[str, Path]]:
    """Kind -> file, for every turn.

    Raises:
        UserError: a file that isn't there, or more files of a kind than turns.
    """
    from mmunify.errors import UserError

    turns: list[dict[str, Path]] = [{} for _ in range(num_turns)]
    for kind, files in given.items():
        if len(files) > num_turns:
            raise UserError(f"{len(files)} --{kind} files for {num_turns} prompts; give each file a prompt")
        for turn, file in zip(turns, files, strict=False):
            if not file.is_file():
                raise UserError(f"no file at {file}, given as --{kind}")
            turn[kind] = file
    return turns


def evaluate(
    bundle: BundlePath,
    protocols: Annotated[list[str] | None, typer.Argument(help="Names of protocols; default: the recipe's.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
    num_samples: Annotated[
        int | None, typer.Option("--num-samples", min=1, help="Per task; default: the recipe's.")
    ] = None,
    allow_imports: AllowImports = False,
) -> None:
    """Measure a trained model on unseen data.

    Example: mmunify eval runs/unifiedmllm refer --json scores.json
    """
    from mmunify.checkpoint import load_bundle
    from mmunify.evaluate.report import print_table, save_json
    from mmunify.evaluate.run import evaluate as measure

    loaded = load_bundle(bundle, allow_imports=allow_imports)
    wanted = loaded.recipe.evaluate
    results = measure(loaded, protocols or wanted.protocols or None, num_samples=num_samples or wanted.num_samples)
    if json_file is not None:
        save_json(results, json_file)
    print_table(results)
