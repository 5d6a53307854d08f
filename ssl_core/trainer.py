"""One loop for pretraining and fine-tuning: it cannot tell an objective from a task.

What happens each step is written where it happens; there are no callbacks. The loop is deterministic on a CPU: a run
killed at any step and resumed from its checkpoint ends with the same weights and the same series (except `time/…` and
`throughput/…`) as one that was left alone, given the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ssl_core import checkpoint, distributed
from ssl_core.batch import Batch
from ssl_core.checkpoint import TrainState
from ssl_core.compiled import compile_loss
from ssl_core.context import RunContext, StopReason
from ssl_core.data.loader import Loader, Prefetch
from ssl_core.errors import NonFiniteError, OutOfMemoryError
from ssl_core.fault import Fault
from ssl_core.guard import EVERY, advice, collapse
from ssl_core.learner import Evaluation, Outcome, TrainStep
from ssl_core.logbook import Logbook, Running
from ssl_core.optim import build_optimizer, clip, rate_factor, set_rate
from ssl_core.pace import LAPS, RESERVE, Stopwatch, affordable, budget_steps, refitted
from ssl_core.spec import TrainPlan
from ssl_core.throughput import Meter, peak_flops, step_flops


def train(
    step: TrainStep,
    loader: Loader,
    plan: TrainPlan,
    context: RunContext,
    evaluation: Evaluation | None = None,
    resume: Path | None = None,
) -> Outcome:
    """Train `step.nets` in place until the budget is spent, the score stops rising, or the context says stop.

    Args:
        step: an objective or task with its nets, on the device to train on.
        loader: its batches.
        plan: the resolved numbers.
        context: where events go, and whether to stop.
        evaluation: scores to take; its `watched` series decides early stopping and which weights are kept.
        resume: a verified checkpoint folder.

    Raises:
        NonFiniteError: names the step whose loss or gradient was NaN or infinite.
        CollapseError: the evaluation's guard gave the run up.
        OutOfMemoryError: the spec needs more memory than there is.
        CheckpointError: `resume` belongs to another spec.
    """
    loop = _Loop(step, loader, plan, context, evaluation)
    try:
        loop.begin(resume)
        return loop.run()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(loop.state.step, plan.batch_size) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise out_of_memory(loop.state.step, plan.batch_size) from error
        raise
    finally:
        loop.close()


def out_of_memory(step: int, batch_size: int) -> OutOfMemoryError:
    text = (
        f"out of memory at step {step + 1} with batch_size {batch_size}; use a smaller batch_size or a smaller backbone"
    )
    return OutOfMemoryError("out_of_memory", text, "batch_size")


class _Loop:
    """The state of one call of `train`. Needs `begin` before `run`."""

    def __init__(
        self, step: TrainStep, loader: Loader, plan: TrainPlan, context: RunContext, evaluation: Evaluation | None
    ) -> None:
        self.learner, self.nets, self.loader, self.plan = step.learner, step.nets, loader, plan
        self.context, self.evaluation = context, evaluation
        self.step, self.device = step, next(self.nets.parameters()).device
        self.optimizer = build_optimizer(self.nets, plan.optimizer, plan.learning_rate)
        self.step_module = distributed.wrap(step)
        self.meter = Meter(self.device, loader.tokens_per_step() / loader.batch_size)
        self.state = TrainState()
        self.logbook = Logbook(context, self.state, self.meter, self.device)
        self.best: dict[str, Tensor] | None = None
        self.guard = evaluation.guard if evaluation is not None else None
        self.guarded = Running(self.device, {})
        self.slices: Prefetch | None = None
        self.bad_step = torch.tensor(-1, device=self.device)
        self.saved_at, self.saved_step = time.monotonic(), -1

    def begin(self, resume: Path | None) -> None:
        """Restore, start the reading thread, and only then set the generators (R13)."""
        if resume is not None:
            self.state, self.best = checkpoint.restore(resume, self.nets, self.optimizer)
            self.logbook = Logbook(self.context, self.state, self.meter, self.device)
            self.guarded = Running(self.device, self.state.guarded, self.state.guarded_count)
            self.saved_step = self.state.step
            self._same_threads()
            self.logbook.message("resumed", f"resumed from the checkpoint of step {self.state.step}")
        elif (total := budget_steps(self.plan, self.loader)) is not None:
            self._fix_schedule(total)
        self.fault = Fault(first_attempt=resume is None)
        self.stopwatch = Stopwatch()
        self.lap = (self.state.step, self.state.elapsed)
        if not self._finished():
            self._measure_machine()
        self.slices = self.loader.ahead(self.state.step)
        if resume is not None:
            checkpoint.restore_rng(resume, distributed.rank())

    def _same_threads(self) -> None:
        """Sums are split by thread count, so a resumed run keeps its first attempt's, whatever this machine would."""
        if self.state.threads and self.state.threads != torch.get_num_threads():
            torch.set_num_threads(self.state.threads)

    def close(self) -> None:
        """Stop reading ahead."""
        if self.slices is not None:
            self.slices.close()

    def run(self) -> Outcome:
        """The story of a run: step, log, evaluate, save; until done or told to stop."""
        self.nets.train()
        if self.state.step == 0 and self.evaluation is not None and self.evaluation.watched is not None:
            # What `Task.begin` solved may stay the best there is.
            self._evaluate(self.evaluation)
        if self.state.step == 0:
            self._guard()
        while not self._finished():
            reason = self._stop_reason()
            if reason is not None:
                self._save()
                return Outcome("stopped", self.state, reason)
            self._step()
            if self.state.total_steps == 0:
                self._maybe_fit_schedule()
            elif self.plan.budget.minutes is not None and self._lap_over(self.plan.budget.minutes):
                self._refit_schedule(self.plan.budget.minutes)
            if self._due(self.state.log_every):
                self._log()
            if self.evaluation is not None and self._due(self.state.evaluate_every):
                self._evaluate(self.evaluation)
            if self.state.step % EVERY == 0:
                self._guard()
            self.logbook.tell_progress()
            if self._save_due():
                self._save()
        if self.saved_step != self.state.step:
            self._save()
        if self.best is not None:
            self.nets.load_state_dict(self.best)
        return Outcome("done", self.state)

    def _step(self) -> None:
        """One optimizer step. Nothing here waits for the device but the check for NaN on a CPU, where it is free."""
        assert self.slices is not None
        started, waited = time.perf_counter(), self.slices.waited
        state, total = self.state, self.state.total_steps
        batch = self.loader.batch(next(self.slices), self.device)
        set_rate(self.optimizer, self._rate())
        with self._precision():
            values = self.step_module(batch)
        loss = self.fault.act(state.step + 1, values["loss"])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip(self.nets, self.plan.optimizer.clip_norm)
        finite = torch.isfinite(loss.detach()) & torch.isfinite(norm)
        self.bad_step = torch.where((self.bad_step < 0) & ~finite, state.step + 1, self.bad_step)
        if self.device.type == "cpu":
            self._check_finite()
        self.optimizer.step()
        state.step += 1
        self.learner.after_step(self.nets, state.step / total if total else 0.0)
        self.logbook.add({**values, "loss": loss, "grad_norm": norm})
        if self.guard is not None:
            self.guarded.add({"loss": loss, **{name: values[name] for name in self.guard.alive}})
        state.examples += self.loader.batch_size
        seconds = time.perf_counter() - started
        state.elapsed += seconds
        self.meter.count(self.loader.batch_size, seconds, self.slices.waited - waited)
        self.stopwatch.count(seconds)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.precision == "bf16")

    def _rate(self) -> float:
        # While a `minutes` budget still measures, warm up as a run of a thousand steps would.
        total = self.state.total_steps or 1000
        return self.plan.learning_rate * rate_factor(self.plan.optimizer, self.state.step, total)

    def _check_finite(self) -> None:
        step = int(self.bad_step.item())
        if step >= 0:
            text = (
                f"the loss or its gradient became NaN or infinite at step {step}; try a lower optimizer.learning_rate, "
                "a longer warmup_fraction, or precision fp32"
            )
            raise NonFiniteError("non_finite_loss", text, "optimizer.learning_rate")

    def _log(self) -> None:
        self._check_finite()
        group = self.optimizer.param_groups[-1]
        rate = group["lr"] / max(1e-30, group["scale"])
        self.logbook.log({"train/learning_rate": rate, "train/epoch": self.loader.epoch(self.state.step)})

    def _guard(self) -> None:
        """Feel the pulse; raise, or warn once, where the run is past saving."""
        guard = self.guard
        if guard is None:
            return
        self._check_finite()
        state, seen = self.state, self.guarded.take()
        started = time.perf_counter()
        values = self._apart(lambda: guard.look(self.nets, seen, state.guard))
        self.logbook.emit("metrics", step=state.step, values=values)
        text = guard.verdict(values, seen, state.guard, state.step)
        # Batch averages differ between processes, and with them the numbers: one that gives up takes all along.
        if distributed.agree(int(text is not None)) and guard.action == "fail":
            self._save()
            raise collapse(text or "another process of this run gave it up")
        if text is not None:
            self.logbook.message_once("collapsed", text)
        if (hint := advice(values, state.guard)) is not None:
            self.logbook.message_once("poor_features", hint)
        state.elapsed += time.perf_counter() - started

    def _apart(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure in evaluation mode, with no trace left in the run's generators."""
        self.nets.eval()
        with torch.no_grad(), torch.random.fork_rng(), distributed.alone():
            values = measure()
        self.nets.train()
        return values

    def _evaluate(self, evaluation: Evaluation) -> None:
        if self.state.evaluated == self.state.step:
            return
        self._check_finite()
        started = time.perf_counter()
        state = self.state
        state.evaluated = state.step
        values = self._apart(lambda: evaluation.measure(self.nets))
        state.metrics.update(values)
        self.logbook.emit("metrics", step=state.step, values=values)
        for code, text in evaluation.warnings(values).items():
            self.logbook.message_once(code, text)
        if evaluation.watched is not None:
            sign = -1 if evaluation.lower_is_better else 1
            self._watch(sign * values[evaluation.watched], values)
        state.elapsed += time.perf_counter() - started

    def _watch(self, score: float, values: dict[str, float]) -> None:
        state = self.state
        if state.best is None or score > state.best:
            state.best, state.best_step, state.stale, state.best_metrics = score, state.step, 0, values
            self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.nets.state_dict().items()}
        else:
            state.stale += 1

    def _save(self) -> None:
        self._check_finite()
        generators = distributed.collected(checkpoint.rng_tensors())
        if distributed.is_main():
            self.logbook.freeze()
            self.state.guarded, self.state.guarded_count = self.guarded.frozen()
            self.state.threads = torch.get_num_threads()
            path = checkpoint.save(self.context.workdir, self.nets, self.optimizer, self.state, self.best, generators)
            relative = path.relative_to(self.context.workdir).as_posix()
            self.logbook.emit(
                "checkpoint", step=self.state.step, path=relative, metrics=dict(list(self.state.metrics.items())[:50])
            )
        self.saved_at, self.saved_step = time.monotonic(), self.state.step

    def _finished(self) -> bool:
        spent = 0 < self.state.total_steps <= self.state.step
        return spent or (self.plan.patience is not None and self.state.stale >= self.plan.patience)

    def _due(self, every: int) -> bool:
        """Every so many steps, and at the last one."""
        return every > 0 and (self.state.step % every == 0 or self.state.step == self.state.total_steps)

    def _save_due(self) -> bool:
        every = self.plan.checkpoint_every_steps
        if every is not None:
            return self.state.step % every == 0
        if distributed.world_size() > 1 and self.state.step % 8:
            return False
        return bool(distributed.agree(int(time.monotonic() - self.saved_at > 60)))

    def _stop_reason(self) -> StopReason | None:
        words: tuple[StopReason, ...] = ("drain", "pause", "cancel")
        if distributed.world_size() > 1 and self.state.step % 8:
            return None
        reason = self.context.should_stop()
        shared = distributed.agree(0 if reason is None else 1 + words.index(reason))
        return words[shared - 1] if shared else None

    def _fix_schedule(self, total: int) -> None:
        self.state.total_steps = total
        self.state.log_every = min(50, max(1, total // 500))
        if self.evaluation is not None:
            self.state.evaluate_every = self.evaluation.every(total, self.loader.steps_per_epoch)

    def _maybe_fit_schedule(self) -> None:
        """Fix the length of a `minutes` run, once enough of its steps are measured."""
        state, minutes = self.state, self.plan.budget.minutes or 0.0
        if not distributed.agree(self.stopwatch.ready(minutes)):
            return
        seconds, before, evaluations = 60.0 * minutes, state.elapsed, 0
        if self.evaluation is not None:
            self._evaluate(self.evaluation)
            evaluations = affordable(seconds, state.elapsed - before)
        spent = state.elapsed + evaluations * (state.elapsed - before)
        left = self.stopwatch.steps_in(seconds, spent)
        total = distributed.agree(state.step + left)
        self._fix_schedule(total)
        state.evaluate_every = max(state.evaluate_every, total // max(1, evaluations))
        pace = self.stopwatch.seconds_per_step
        text = f"{minutes:g} min allow {total} steps of {pace:.3f} s; the schedule is fixed to that"
        self.logbook.message("schedule_fitted", text)
        self.lap = (state.step, state.elapsed)

    def _lap_over(self, minutes: float) -> bool:
        """Every so many steps; sooner where they take more than twice their time, or the run would be late by them."""
        if self.state.step % max(1, self.state.total_steps // LAPS) == 0:
            return True
        if distributed.world_size() > 1 and self.state.step % 8:
            return False
        late = self.state.elapsed - self.lap[1] > 2 * 60.0 * minutes / LAPS
        return bool(distributed.agree(int(late)))

    def _refit_schedule(self, minutes: float) -> None:
        """Lengthen or shorten a `minutes` run where the machine has become faster or slower."""
        state = self.state
        # With the evaluations between, which take their share of what is left too.
        pace = (state.elapsed - self.lap[1]) / max(1, state.step - self.lap[0])
        self.lap = (state.step, state.elapsed)
        left = 60.0 * minutes * RESERVE - state.elapsed
        total = distributed.agree(refitted(state.step, state.total_steps, left, pace))
        if total != state.total_steps:
            text = f"a step now takes {pace:.3f} s: {minutes:g} min allow {total} steps instead of {state.total_steps}"
            state.total_steps = total
            self.logbook.message("schedule_refitted", text)

    def _measure_machine(self) -> None:
        """FLOPs of a step and of the device, for `throughput/mfu`, at the cost of a forward pass; then compile it."""
        self.nets.eval()
        batch = self.loader.batch(self.loader.read(self.state.step), self.device)
        with self._precision():
            self.meter.flops = step_flops(lambda: self.learner.loss(self.nets, batch)) * distributed.world_size()
        self.meter.peak = peak_flops(self.device, self.plan.precision) * distributed.world_size()
        if self.plan.compile:
            self._compile(batch)

    def _compile(self, batch: Batch) -> None:
        self.nets.train()
        started = time.monotonic()
        refused = compile_loss(self.step, batch, self._precision())
        if refused is None:
            self.logbook.message("compiled", f"the step was compiled in {time.monotonic() - started:.0f} s")
        else:
            text = f"the step runs uncompiled, as torch.compile refused it: {refused[:300]}"
            self.logbook.message_once("compile_refused", text)
