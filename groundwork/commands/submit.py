"""`groundwork jobs submit` and its shortcuts `pretrain` and `finetune`: a spec from flags, a file, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from groundwork.commands import completion, draw, job_views, watch
from groundwork.commands.command import Json, Terminal, command, pairs
from groundwork.commands.failures import Failure

if TYPE_CHECKING:
    from groundwork.commands.specs import Draft

BUDGETS = ("minutes", "steps", "epochs", "examples", "tokens")
TRAINED = ("pretrain", "finetune")
_FLAGS = {"test_dataset": "--test-dataset", "batch_size": "--batch-size"}
_LABELS = "rows of each class: one number, or of label_efficiency several: 5,10,30"

File = Annotated[str | None, typer.Option("--file", "-f", help="spec of YAML or JSON; - = standard input; flags win")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="any field: optimizer.learning_rate=1e-3; repeat it")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="follow it until it has ended")]
Dry = Annotated[bool, typer.Option("--dry-run", help="show the whole spec and what it would need; start nothing")]
Minutes = Annotated[float | None, typer.Option(help="train so long, by the clock", rich_help_panel="Budget")]
Steps = Annotated[int | None, typer.Option(help="train so many steps", rich_help_panel="Budget")]
Epochs = Annotated[float | None, typer.Option(help="see the data so often", rich_help_panel="Budget")]
Dataset = Annotated[str | None, typer.Option(help="id of a dataset", autocompletion=completion.datasets)]
TestSet = Annotated[str | None, typer.Option(help="labelled rows to score on", autocompletion=completion.datasets)]
Model = Annotated[str | None, typer.Option(help="id of a model to start from", autocompletion=completion.models)]
Objective = Annotated[str | None, typer.Option(help="`groundwork objectives`", autocompletion=completion.objectives)]
Backbone = Annotated[str | None, typer.Option(help="`groundwork backbones`", autocompletion=completion.backbones)]
Task = Annotated[str | None, typer.Option(help="`groundwork tasks`", autocompletion=completion.tasks)]
Metadata = Annotated[list[str] | None, typer.Option(help="NAME=VALUE of your own; repeat it")]


def attach(group: typer.Typer) -> None:
    """`submit` under `jobs`."""

    @command(group, "submit")
    def submit(
        terminal: Terminal,
        *,
        type: Annotated[str | None, typer.Option(help="pretrain, finetune, evaluate, predict, embed, …")] = None,
        dataset: Dataset = None,
        objective: Objective = None,
        backbone: Backbone = None,
        model: Model = None,
        task: Task = None,
        test_dataset: TestSet = None,
        labels: Annotated[str | None, typer.Option(help=_LABELS)] = None,
        format: Annotated[str | None, typer.Option(help="of an export: hf or onnx")] = None,
        minutes: Minutes = None,
        steps: Steps = None,
        epochs: Epochs = None,
        batch_size: Annotated[int | None, typer.Option(help="samples of a step")] = None,
        seed: Annotated[int | None, typer.Option(help="of everything that is drawn")] = None,
        suffix: Annotated[str | None, typer.Option(help="goes into the model's name")] = None,
        metadata: Metadata = None,
        set: Sets = None,
        file: File = None,
        watch: Watch = False,
        dry_run: Dry = False,
    ) -> int:
        """Start a job. What is left out has a default; --dry-run shows every number and starts nothing."""
        flags = {
            "type": type, "dataset": dataset, "objective": objective, "backbone": backbone, "model": model,
            "task": task, "test_dataset": test_dataset, "labels": labels, "format": format, "minutes": minutes,
            "steps": steps, "epochs": epochs, "batch_size": batch_size, "seed": seed, "suffix": suffix,
        }  # fmt: skip
        return start(terminal, draft(file, flags, metadata, set), watch, dry_run)


def attach_top(app: typer.Typer) -> None:
    """`pretrain` and `finetune`."""

    @command(app, "pretrain", "Work")
    def pretrain(
        terminal: Terminal,
        dataset: Annotated[str, completion.dataset_argument()],
        *,
        objective: Objective = None,
        backbone: Backbone = None,
        model: Model = None,
        minutes: Minutes = None,
        steps: Steps = None,
        epochs: Epochs = None,
        set: Sets = None,
        file: File = None,
        watch: Watch = False,
        dry_run: Dry = False,
    ) -> int:
        """Learn from unlabelled data: `groundwork pretrain DATASET --objective mlm --watch`."""
        flags = {
            "type": "pretrain", "dataset": dataset, "objective": objective, "backbone": backbone, "model": model,
            "minutes": minutes, "steps": steps, "epochs": epochs,
        }  # fmt: skip
        return start(terminal, draft(file, flags, None, set), watch, dry_run)

    @command(app, "finetune", "Work")
    def finetune(
        terminal: Terminal,
        model: Annotated[str, completion.model_argument()],
        dataset: Annotated[str, completion.dataset_argument()],
        *,
        task: Task = None,
        test_dataset: TestSet = None,
        labels: Annotated[str | None, typer.Option(help="use so many rows of each class")] = None,
        minutes: Minutes = None,
        steps: Steps = None,
        epochs: Epochs = None,
        set: Sets = None,
        file: File = None,
        watch: Watch = False,
        dry_run: Dry = False,
    ) -> int:
        """Teach a pretrained model a task from a few labels: `groundwork finetune MODEL DATASET --watch`."""
        flags = {
            "type": "finetune", "model": model, "dataset": dataset, "task": task, "test_dataset": test_dataset,
            "labels": labels, "minutes": minutes, "steps": steps, "epochs": epochs,
        }  # fmt: skip
        made = draft(file, flags, None, set)
        task = made.body.setdefault("task", {})
        if isinstance(task, dict) and "name" not in task:
            made.put("task.name", "classification", "the default of --task")
        return start(terminal, made, watch, dry_run)


def draft(file: str | None, flags: Json, metadata: list[str] | None, given: list[str] | None) -> Draft:
    """The spec of a file, then of flags, then of `--set`. Raises Failure."""
    from groundwork.commands.specs import Draft, read, sets

    made = read(file) if file else Draft()
    for name, value in flags.items():
        if value is not None:
            _put(made, name, value, _FLAGS.get(name, f"--{name}"))
    for name, value in pairs(metadata or [], "--metadata").items():
        made.put(f"metadata.{name}", value, "--metadata")
    sets(made, given or [])
    if "type" not in made.body:
        made.put("type", _kind(made.body), "--type")
    return made


def start(terminal: Terminal, made: Draft, follow: bool, dry_run: bool) -> int:
    """Send it, or ask what it would be; the exit status."""
    if dry_run:
        _estimate(terminal, made)
        return 0
    job = _ask(terminal, "/jobs", made)
    if not follow:
        terminal.show(job, lambda: [job_views.sheet(job), _hint(job)])
        return 0
    terminal.note(f"{job['type']} job {job['id']}")
    return watch.follow(terminal, job["id"])


def _ask(terminal: Terminal, path: str, made: Draft) -> Json:
    try:
        return terminal.server.post(path, made.body)
    except Failure as failure:
        where = made.where(failure.param)
        if where is not None:
            named = f"`{failure.param}`: " if where.startswith("--") and failure.param in made.told else ""
            failure.message = f"{where}: {failure.message.removeprefix(named)}"
            failure.advice = _advice(failure.param or "") or failure.advice
        raise


def _advice(param: str) -> str:
    head = param.partition(".")[0]
    shown = {"objective": "objectives", "task": "tasks", "backbone": "backbones"}.get(head)
    if shown is not None:
        return f"`groundwork {shown}` lists them with their fields"
    listed = {"model": "models", "public_model": "models"}.get(head, "datasets" if "dataset" in head else "")
    return f"`groundwork {listed} list` shows what is there" if listed else ""


def _put(made: Draft, name: str, value: Any, by: str) -> None:
    if name in BUDGETS:
        made.body["budget"] = {}
        made.told = {path: told for path, told in made.told.items() if not path.startswith("budget")}
        made.put(f"budget.{name}", value, by)
        made.told["budget"] = by
    elif name in ("objective", "task"):
        made.name(name, value, by)
    elif name == "labels":
        made.put(name, _labels(value, made.body.get("type") == "label_efficiency"), by)
    else:
        made.put(name, value, by)


def _labels(text: str, several: bool) -> Any:
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError as error:
        raise Failure(f"--labels {text!r} is no number of rows", "write it like --labels 30 or 5,10,30") from error
    return numbers if several or len(numbers) > 1 else numbers[0]


def _kind(body: Json) -> str:
    if "objective" in body:
        return "pretrain"
    if "task" in body:
        return "finetune"
    raise Failure("nothing says what kind of job this is", "give --type, --objective (pretrain) or --task (finetune)")


def _estimate(terminal: Terminal, made: Draft) -> None:
    from groundwork.commands.specs import dump

    if made.body["type"] not in TRAINED:
        terminal.show(made.body, lambda: [draw.plain(dump(made.body).rstrip())])
        return
    found = _ask(terminal, "/jobs/estimate", made)
    terminal.show(found, lambda: _estimated(found))


def _estimated(found: Json) -> list[Any]:
    from groundwork.commands.specs import dump

    needs = {
        "steps": "as many as the minutes allow" if found["steps"] is None else draw.count(found["steps"]),
        "examples per epoch": draw.count(found["examples_per_epoch"]),
        "parameters": draw.millions(found["parameters"]),
        "of these trained": draw.millions(found["trained_parameters"]),
        "memory": f"about {draw.size(found['memory_bytes'])}",
    }
    return [draw.plain(dump(found["resolved_spec"]).rstrip()), draw.heading("it would need"), draw.facts(needs)]


def _hint(job: Json) -> Any:
    return draw.plain(f"\nFollow it with `groundwork jobs watch {job['id']}`.")
