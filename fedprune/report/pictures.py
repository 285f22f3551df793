"""Figures that look inside models: drawn from a scene, one function a kind, chosen by a study's `drawing.kind`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedprune.core.errors import ConfigError
from fedprune.report.names import in_prose
from fedprune.report.scene import Scene
from fedprune.report.style import COLOURS, GREY, legend_beside, new_figure, tidy_axes
from fedprune.study.study import Study
from fedprune.vit.look import class_tokens, neuron_activations, rollout
from fedprune.vit.units import unpack

Options = Mapping[str, Any]


def draw_picture(study: Study, scene: Scene) -> Figure:
    """Draw a study's picture of a scene.

    Raises:
        ConfigError: there is no such kind of picture.
    """
    kind = str(study.drawing.get("kind"))
    if kind not in PICTURES:
        raise ConfigError(f"{study.name}: there is no drawing {kind!r}. There are: {', '.join(PICTURES)}.")
    torch.set_num_threads(scene.config.threads)
    return PICTURES[kind](scene, study.drawing)


def neuron_overlap(scene: Scene, _options: Options) -> Figure:
    """Show how far devices agree on the most important tenth of MLP neurons, and one block's importance."""
    rows = _importance(scene)
    blocks = [unpack(row, scene.base.shape).blocks for row in rows]
    overlap = np.zeros((len(rows), len(rows)))
    for block in zip(*blocks, strict=True):
        values = np.array([units.neurons for units in block])
        top = values >= np.quantile(values, 0.9, axis=1, keepdims=True)
        overlap += (top[:, None] & top[None]).sum(-1) / top.sum(-1)[:, None] / len(blocks[0])
    common = overlap[np.triu_indices(len(rows), 1)].mean()
    middle = np.array([device[len(device) // 2].neurons for device in blocks])
    order = np.argsort(-middle.mean(0))[:96]
    figure = new_figure(9.5, 4)
    left, right = figure.subplots(1, 2)
    _heat(figure, left, overlap, scene.tasks(), f"top tenth in common, mean {common:.2f}", vmin=0, vmax=1)
    shown = middle[:, order] / middle[:, order].max(1, keepdims=True)
    right.imshow(shown, aspect="auto", cmap="magma")
    right.set_yticks(range(len(rows)), [])
    title = f"importance in block {len(blocks[0]) // 2}, bright: high"
    right.set(xlabel="neurons by mean importance", title=title)
    return figure


def task_relevance(scene: Scene, _options: Options) -> Figure:
    """Show by block how alike devices find heads and neurons important, by NuWa's criterion; and embedding dimensions.

    Cosine similarity of two devices' importance vectors, `E |w dL/dw|` on their proxy sets: 1 where tasks agree.
    """
    rows = _importance(scene, "weight_taylor")
    blocks = [unpack(row, scene.base.shape).blocks for row in rows]
    figure = new_figure()
    axes = figure.add_subplot()
    for colour, kind in zip(COLOURS, ("heads", "neurons"), strict=False):
        pairs = np.array([likeness([getattr(units, kind) for units in block]) for block in zip(*blocks, strict=True)])
        axes.plot(pairs.mean(1), color=colour, marker="o", ms=4, label=kind)
        axes.fill_between(range(len(pairs)), pairs.min(1), pairs.max(1), color=colour, alpha=0.15, linewidth=0)
    embedding = likeness([row[: scene.base.shape.embed] for row in rows]).mean()
    axes.axhline(embedding, color=GREY, ls="--", label="embedding, whole model")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy_axes(
        axes, xlabel="block", ylabel="cosine similarity of two devices' importance", title="mean and range over pairs"
    )
    legend_beside(figure)
    return figure


def likeness(vectors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the cosine similarity of each pair of vectors (pairs,)."""
    unit = np.array([vector / np.linalg.norm(vector) for vector in vectors])
    return np.asarray((unit @ unit.T)[np.triu_indices(len(unit), 1)])


def embedding_importance(scene: Scene, _options: Options) -> Figure:
    """Show each device's importance of embedding dimensions, sorted by their mean."""
    values = np.array([row[: scene.base.shape.embed] for row in _importance(scene)])
    values /= values.sum(1, keepdims=True)
    order = np.argsort(-values.mean(0))
    ranks = np.argsort(np.argsort(values, axis=1), axis=1)
    agreement = np.atleast_2d(np.corrcoef(ranks))[np.triu_indices(len(values), 1)].mean()
    figure = new_figure()
    axes = figure.add_subplot()
    for number, row in enumerate(values):
        again, colour = divmod(number, len(COLOURS))
        dashes = ("-", "--", ":")[again % 3]
        axes.plot(row[order], color=COLOURS[colour], ls=dashes, lw=0.9, label=scene.tasks()[number])
    tidy_axes(
        axes,
        xlabel="embedding dimension, by mean importance",
        ylabel="share of importance",
        title=f"mean rank correlation between devices {agreement:.2f}",
    )
    legend_beside(figure)
    return figure


def spectra(scene: Scene, _options: Options) -> Figure:
    """Show the energy that the largest singular values of each head's products hold."""
    model: Any = scene.base.model
    colours = colormaps["viridis"](np.linspace(0, 0.95, len(model.blocks)))  # from the first block to the last
    figure = new_figure(8.5, 3.6)
    for axes, title in zip(figure.subplots(1, 2, sharey=True), ("query-key", "value-output"), strict=True):
        for number, (block, widths) in enumerate(zip(model.blocks, scene.base.shape.blocks, strict=True)):
            query, key, value = block.attn.qkv.weight.double().chunk(3)
            output = block.attn.proj.weight.double().T
            first, second = (query, key) if title == "query-key" else (value, output)
            heads = zip(first.chunk(widths.heads), second.chunk(widths.heads), strict=True)
            energy = torch.stack([torch.linalg.svdvals(a.T @ b)[: a.shape[0]] ** 2 for a, b in heads])
            share = (energy.cumsum(1) / energy.sum(1, keepdim=True)).mean(0).numpy()
            axes.plot(range(1, len(share) + 1), 100 * share, lw=1.1, color=colours[number], label=f"block {number}")
        tidy_axes(axes, xlabel="singular values kept a head", title=title)
    figure.axes[0].set_ylabel("energy kept (%), mean over heads")
    legend_beside(figure)
    return figure


def show_rollout(scene: Scene, options: Options) -> Figure:
    """Show images of two tasks, and where base and both edge models look; a token reducer is left out."""
    first, second = options.get("devices") or _two_tasks(scene)
    count = int(options.get("images", 3))
    tests = [(device, scene.shard(device).test) for device in (first, second)]
    images = np.concatenate([test.read(scene.some(np.arange(len(test)), count, device)) for device, test in tests])
    inputs = scene.inputs(images)
    prefix = scene.base.shape.prefix_tokens
    names = [f"edge model {scene.tasks()[device]}" for device in (first, second)]
    models = [
        ("base", scene.base.model),
        *zip(names, (scene.edge(d).backbone for d in (first, second)), strict=True),
    ]
    figure = new_figure(1.15 * len(images) + 1, 1.25 * (len(models) + 1))
    grid = figure.subplots(len(models) + 1, len(images), squeeze=False)
    _image_row(grid[0], images, "image")
    for line, (name, model) in zip(grid[1:], models, strict=True):
        _image_row(line, images, name)
        for axes, heat in zip(line, rollout(model, inputs, prefix), strict=True):
            side = images.shape[1]
            axes.imshow(
                heat, cmap="inferno", alpha=0.65, extent=(-0.5, side - 0.5, side - 0.5, -0.5), interpolation="bilinear"
            )
    return figure


def top_images(scene: Scene, options: Options) -> Figure:
    """Show the pool images that drive a few neurons of two edge models most."""
    neurons, count = int(options.get("neurons", 5)), int(options.get("images", 8))
    pixels = scene.pool.read(scene.some(np.arange(len(scene.pool)), 512, "neurons"))
    inputs = scene.inputs(pixels)
    figure = new_figure(0.85 * 2 * count + 1, 0.9 * neurons + 0.6)
    parts: Any = figure.subfigures(1, 2)
    for part, device in zip(parts, _two_tasks(scene), strict=True):
        model: Any = scene.edge(device).backbone
        block = max(index for index, module in enumerate(model.blocks) if module.mlp is not None)
        activation = neuron_activations(model, inputs, block)
        relative = activation / (activation.std(0) + 1e-6)
        chosen = np.argsort(-relative.max(0))[:neurons]
        part.suptitle(f"edge model {scene.tasks()[device]}, last MLP", fontsize=9)
        grid = part.subplots(neurons, count, squeeze=False)
        for line, neuron in zip(grid, chosen, strict=True):
            best = np.argsort(-activation[:, neuron])[:count]
            _image_row(line, pixels[best], f"neuron {neuron}")
    return figure


def tsne(scene: Scene, options: Options) -> Figure:
    """Show a device's test images in the stream of base and edge model, after three blocks each."""
    from sklearn.manifold import TSNE

    device = int(options.get("device", 0))
    test = scene.shard(device).test
    chosen = scene.some(np.arange(len(test)), 240, "tsne")
    labels, names = test.labels[chosen], scene.simulation.public.public.classes
    inputs = scene.inputs(test.read(chosen))
    figure = new_figure(8.4, 5.4)
    grid = figure.subplots(2, 3)
    models: tuple[tuple[str, Any], ...] = (("base", scene.base.model), ("edge model", scene.edge(device).backbone))
    classes = np.unique(labels)
    for line, (name, model) in zip(grid, models, strict=True):
        depth = len(model.blocks)
        picked = [0, depth // 2, depth - 1]
        for axes, block, tokens in zip(line, picked, class_tokens(model, inputs, picked), strict=True):
            places = TSNE(random_state=0, init="pca", perplexity=min(30, len(tokens) / 4)).fit_transform(tokens)
            for number, label in enumerate(classes):
                axes.scatter(*places[labels == label].T, color=colormaps["tab20"](number % 20), s=7, label=names[label])
            axes.set(xticks=[], yticks=[], title=f"{name}, after block {block}")
    figure.suptitle(f"test images of device {scene.tasks()[device]}", fontsize="medium")
    legend_beside(figure)
    return figure


def widths(scene: Scene, options: Options) -> Figure:
    """Show how much of each block's widths methods keep, mean over devices."""
    kinds = ("heads", "qk", "v", "neurons")
    methods = list(options.get("methods", ["random", "fedprune"]))
    figure = new_figure(2.4 * len(methods) + 2.2, 3.2)
    for axes, method in zip(figure.subplots(1, len(methods), sharey=True, squeeze=False)[0], methods, strict=True):
        values = scene.config.to_dict()
        other = Scene(type(scene.config).from_dict({**values, "method": {"name": method}}))
        base = other.base.shape
        kept, embed = np.zeros((len(base.blocks), len(kinds))), 0.0
        devices = other.devices
        for device in devices:
            edge = other.edge(device)
            embed += edge.shape.embed / base.embed
            for block, shape in zip(edge.keep.blocks, edge.shape.blocks, strict=True):
                full = base.blocks[block.block]
                kept[block.block] += [getattr(shape, kind) / getattr(full, kind) for kind in kinds]
        for number, kind in enumerate(kinds):
            axes.plot(
                100 * kept[:, number] / len(devices), marker="o", ms=3, color=COLOURS[number], label=in_prose(kind)
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        title = f"{in_prose(method)}, embedding {100 * embed / len(devices):.0f} %"
        tidy_axes(axes, xlabel="block", title=title, ylim=(-4, 104))
    figure.axes[0].set_ylabel("kept (%)")
    legend_beside(figure)
    return figure


def _importance(scene: Scene, statistic: str = "taylor_abs") -> list[NDArray[np.float64]]:
    """Return each device's mean importance of every unit, on its proxy set."""
    proxies = [scene.proxy(device).indices for device in scene.devices]
    scene.server.evidence.prepare(np.unique(np.concatenate(proxies)))
    return [scene.server.evidence.mean_row(statistic, proxy) for proxy in proxies]


def _two_tasks(scene: Scene) -> tuple[int, int]:
    """Return the first two devices, whose tasks differ where there are sub-tasks."""
    if len(scene.devices) < 2:
        raise ConfigError("This picture compares two devices. Set partition.devices to at least 2.")
    return 0, 1


def _image_row(line: Any, images: NDArray[np.uint8], label: str) -> None:
    for axes in line:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, image in zip(line, images, strict=False):
        axes.imshow(image)
    line[0].set_ylabel(label.replace("model ", "model\n"), fontsize=7, rotation=0, ha="right", va="center")


def _heat(
    figure: Figure, axes: Any, values: NDArray[np.float64], labels: list[str], title: str, **limits: float
) -> None:
    image = axes.imshow(values, cmap="viridis", **limits)
    axes.set_xticks(range(len(labels)), [label.split(":")[0] for label in labels])
    axes.set_yticks(range(len(labels)), labels)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, shrink=0.8)


PICTURES: dict[str, Callable[[Scene, Options], Figure]] = {
    "neuron_overlap": neuron_overlap,
    "task_relevance": task_relevance,
    "embedding_importance": embedding_importance,
    "spectra": spectra,
    "rollout": show_rollout,
    "top_images": top_images,
    "tsne": tsne,
    "widths": widths,
}
