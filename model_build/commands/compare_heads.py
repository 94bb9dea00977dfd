"""``model-build compare-heads``: every kind of head on one model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare-heads")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The data set, in the layout that CONFIG names.")
@click.option("--model", type=click.Path(path_type=Path), required=True, help="A bundle folder, or a .tflite with CONFIG's input size.")
def command(config: Path, data: Path, model: Path) -> None:
    """Compare every kind of head on the embeddings of MODEL, by cross-validation over patients."""
    from model_build.config import load_build_config
    from model_build.data.images import read_images
    from model_build.heads.embed import embed_images
    from model_build.progress import BarProgress, files_read
    from model_build.studies import head_comparison

    build = load_build_config(config)
    content, contract = head_comparison.read_model(model, build.input)
    heads = head_comparison.every_kind(build.head)
    with BarProgress() as progress:
        images = read_images(data, build.source, contract, files_read(progress), task=build.task)
        progress.stage("int8 embedding", 1)
        embeddings = embed_images(content, images.pixels).embeddings
        progress.stage("fitting heads", len(heads) * head_comparison.FOLD_COUNT)
        positive = images.targets[:, build.source.labels.index(build.source.positive[0])]
        patients = [entry.patient for entry in images.files]
        results = head_comparison.compare_heads(embeddings, positive, patients, heads, build.seed, progress.advance)
    click.echo(head_comparison.render_comparison(results, len(positive), len(set(patients))))
