"""One device made of all ranks: which batch this rank is at, which parameters it trains, what a backward does."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ... import planner
from ...plan import Layout
from .. import accelerator, group
from ..here import Here
from . import alike, asked, chance, counts, draws, first_call, layout, marks, place, roots, scripted, under_way
from .ahead import Ahead, News
from .announce import announce, introduction
from .at_hand import AtHand
from .birth import Birth
from .gradients import Gradients
from .loader import generators, whole
from .meter import Meter
from .micro import Micro
from .place import Place
from .resume.rank import Resume
from .selfcheck import SelfCheck
from .share import Share, going_back
from .single import is_one_number
from .time_first import TimeFirst
from .undivided import Undivided, arrived
from .whole_batches import WholeBatches
from .within import Within

if TYPE_CHECKING:
    from .seen import Seen

Stepper = Callable[[Optimizer, roots.Call, tuple, dict[str, Any]], Any]
"""Takes part in `optimizer.step()`: given the optimizer, what to call, and its arguments."""


class Engine:
    """The state of this rank while the script trains."""

    def __init__(self, me: Here, seen: "Seen", options: Layout) -> None:
        self.me = me
        self.rank = me.ranks.rank
        self.seen = seen
        self.layout = me.wishes.layout.over(options)
        """What the command line and the script's one line ask for; the command line wins."""
        self.place: Place | None = None
        """Set by `settle`, when training begins."""
        self.birth = Birth(self)
        self.meter = Meter(me.run, self.rank, me.launch.peak_tflops)
        self.callers: list[roots.Caller] = [self.meter.caller]
        """Who takes part in a call of the script's models, the outermost first."""
        self.steppers: list[Stepper] = [self.meter.stepper]
        """Who takes part in a step of the script's optimizers, the outermost first."""
        self.at_hand = AtHand(lambda: seen.modes.trains(self.gradients.parameters))
        self.time_first = TimeFirst(self)
        self.whole_batches = WholeBatches(self)
        self.self_check = SelfCheck(self, wanted=me.wishes.self_check)
        self.micro: Micro
        """Set by `settle` as well."""
        self.undivided = Undivided(self)
        self.within = Within(self)
        self.gradients = Gradients(seen)
        self.in_backward = False
        self.in_training = False
        """Whether the script's last batch is of a loop that was begun to train."""
        self.ahead = Ahead()
        self._is_announced = self._has_blocks = False
        self.has_own_chance = False
        self._said: set[str] = set()
        self.resume: Resume | None = None
        """Checkpoints of this run; None when the user wants none."""

    def save_and_resume(self) -> None:
        """Save checkpoints from now on, and go on from one that is there; all ranks call this together."""
        self.resume = Resume(self)
        self.callers.insert(0, self.resume.caller)
        self.steppers.insert(0, self.resume.stepper)
        self.resume.begin()

    def settle(self) -> Place:
        """Choose the plan, once, and lay out the script's models that are not yet; all ranks come here together."""
        where = self._choose()
        if self.seen.has_new_modules:
            self.seen.has_new_modules = False
            first_call.stop()
            for root in roots.find(self.seen.modules()):
                self._lay_out(root, where)
            self.birth.end(where)
            scripted.check()
            layout.give_memory_back(at_once=False)
        if self.resume is not None:
            self.resume.settled()
        return where

    def _choose(self) -> Place:
        if self.place is None:
            self.place = place.find(planner.choose(self.layout, self.scale()), self.rank, self.birth.place)
            group.share_among(self.place.data_group)
            self.meter.plan = self.place.plan
            self.cutter = self.whole_batches.begin(self.place, self._end_batches)
            self.micro = Micro(self, self.place.plan.micro_batches)
            self.callers = [self.micro.caller, *self.callers, *layout.callers(self.place)]
            self.stages = layout.Calls(self)
            if self.place.plan.pp > 1:
                self.callers.append(self.stages.caller)
                self.steppers.append(self.stages.stepper)
            self.steppers += layout.steppers(self.place)
        return self.place

    def await_call(self) -> None:
        """Settle when the script calls a model that it did not have before, once there is an optimizer."""

        def begin() -> None:
            if self.seen.living_optimizers() and not self.in_backward:
                self.settle()

        first_call.await_one(begin)

    def _lay_out(self, root: torch.nn.Module, where: Place) -> None:
        if isinstance(root, roots.Adopted):
            return
        if self.resume is not None:
            self.resume.sketch(root)
        # Around a part that is laid out nothing more can be; the rest of such a model stays whole.
        if not self.seen.laid_out & set(root.modules()):
            self.gradients.adopt([*root.parameters(), *(each for each in root.buffers() if each.is_floating_point())])
            if sentence := layout.idle(root, where.plan):
                self.say_once(sentence, sentence)
            self._has_blocks |= sentence is None
            layout.apply(root, where, self.seen.living_optimizers())
            if where.plan.shards:
                self.seen.laid_out.update(root.modules())
        roots.adopt(root, self.call)
        self.gradients.refresh(again=True)

    @property
    def shards(self) -> bool:
        """Whether some rank has less than all of a model."""
        return any(here is not None and here.plan.shards for here in (self.place, self.birth.place))

    @property
    def may_shard(self) -> bool:
        """The same, or the user asked for it and training has not begun."""
        return self.shards or self.birth.is_wished

    def step(self, optimizer: Optimizer, own: roots.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One step of an optimizer of the script."""
        if not self.is_repeating and not args and kwargs.get("closure") is None:
            self.at_hand.check_step(optimizer)
        return roots.through(self.steppers, optimizer, own, args, kwargs)

    def scale(self) -> planner.Scale:
        """How big the training is, as far as the script has told."""
        trained = {id(parameter): parameter.numel() for parameter in self.seen.trained()}
        every = {id(parameter): parameter.numel() for parameter in self.seen.registered()}
        return planner.Scale(
            world_size=self.me.ranks.world_size,
            local_world_size=self.me.ranks.local_world_size,
            trained=sum(trained.values()),
            frozen=sum(size for key, size in every.items() if key not in trained),
            device_bytes=accelerator.memory_bytes() // self.me.devices_shared_by,
        )

    def models(self) -> list[torch.nn.Module]:
        """The models of the script that take part, in the order of their birth."""
        return [each for each in roots.find(self.seen.modules()) if isinstance(each, roots.Adopted)]

    def call(self, root: torch.nn.Module, own: roots.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One call of a model of the script."""
        return self.undivided.call(root, own, args, kwargs, partial(self._compute, root, own))

    def _compute(self, root: torch.nn.Module, own: roots.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        self.self_check.saw()
        alike.check(self.share, alike.Doing.call)
        counts.find_rows((args, kwargs), self.share)
        with counts.plainly((args, kwargs)) as given, self.at_hand.computing(given):
            result = counts.mark_outputs(self.within.call(root, own, args, kwargs, given), given)
        if self.resume is not None and self.resume.replay is None:
            self.resume.forwards.note(result)
        return result

    def say_once(self, topic: str, sentence: str) -> None:
        """Say *sentence* in the log, on rank 0, once for each *topic*."""
        if self.self_check.is_running:  # which is silent, so it would be said to nobody
            return
        if self.rank == 0 and topic not in self._said:
            print(f"lumi-moai: {sentence}", file=sys.stderr)
        self._said.add(topic)

    @property
    def share(self) -> Share | None:
        """Of the batch at hand; None while every rank has the whole batch, and while nothing is computed."""
        return None if self.is_repeating else self.at_hand.share

    def rows(self, own: Share | None = None) -> draws.Rows | None:
        """Of the batch that is drawn for, *own* if known; None for whole batches, and for a piece of the rows."""
        share = None if self.is_repeating else self.at_hand.share_of(own)
        if share is None or self.micro.in_piece:
            return None
        return draws.rows_of(share, self._choose().data_rank)  # a model may be half made when it draws

    @contextmanager
    def unjournaled(self) -> Iterator[None]:
        """Within this nothing that is read is for the journal: a restart does not do it again."""
        resume, self.resume = self.resume, None
        try:
            yield
        finally:
            self.resume = resume

    def begin_batch(self, share: Share | None, batch: Any, *, trains: bool, loader: Any = None) -> Any:
        """What *loader* hands out as *batch*, of which this rank has *share*, in a loop begun to train or not."""
        tell = partial(self._begin_batch, share, batch, trains=trains, loader=loader)
        self.ahead.tell(News(tell=tell, of_batch=True, share=share, loader=loader, batch=batch))
        # Trainers count over the ranks themselves, as scripts do with accelerate's gather.
        if share is not None and not self.self_check.is_of_library and not self.ahead.is_held:
            batch = self.whole_batches.handed_out(loader, batch, share)
            batch = counts.mark(batch, share, self.time_first.places)
        elif share is None and self.ahead.looks:
            counts.mark_whole(batch)
        return batch

    def _end_batches(self) -> None:
        def end() -> None:
            alike.check(self.share, alike.Doing.batch)
            self.at_hand.end()

        self.ahead.tell(News(tell=end, of_batch=False))

    def _begin_batch(self, share: Share | None, batch: Any, *, trains: bool, loader: Any) -> None:
        alike.check(self.share, alike.Doing.batch)
        self.time_first.look(loader, batch, share)
        self.in_training = trains  # also after an evaluation amid an epoch
        if self.in_training and self.resume is not None:
            self.resume.batch(share)
        if self.in_training and not self.is_repeating:
            self.self_check.look(batch, share)
            self.meter.count(batch, share)
        if self.place is not None and not self.is_repeating:
            self.micro.begin_batch(batch, share, trains=trains)
        self.at_hand.begin(share)

    def batches(self, loader: DataLoader, own: Callable[[DataLoader], Iterator]) -> Iterator:
        """The iterator over *loader* for this rank; *own* is DataLoader's own."""
        if self.resume is not None:
            self.resume.loop(generators(loader), chance.agree)
        else:
            chance.agree(generators(loader))
        self.gradients.refresh()
        trained = self.gradients.parameters
        trains = torch.is_grad_enabled() and not self.ahead.looks
        self.in_training = bool(trained) and trains and self.seen.modes.trains(trained)
        begin = partial(self.begin_batch, trains=self.in_training)
        if not trained:
            # Before there is an optimizer or a backward, a loop looks at the data: all ranks see all of it.
            return whole(loader, own, begin)
        ranks = self.settle().data_ranks
        if ranks > 1 and self.in_training:
            self.take_own_chance()
            self.at_hand.begin_loop()
            self.gradients.by_hand.begin_loop()
            counts.teach(lambda: self.share, self.say_once)
            return self.cutter.shares(loader, own, partial(begin, loader=loader))
        return whole(loader, own, begin)

    def take_own_chance(self) -> None:
        """Once training begins, rows on different ranks must not get the same dropout; rank 0 keeps the script's."""
        if not self.has_own_chance and (mine := self.settle().data_rank) != 0:
            accelerator.seed(torch.initial_seed() + mine)
        self.has_own_chance = True

    def backward(self, own: Callable[..., None], tensors: Any, seeds: Any, *args: Any, **kwargs: Any) -> None:
        """One backward of the script; *own* is torch's. The gradients are the global ones when it returns."""
        if self.in_backward:  # a checkpointed part inside a backward, by torch itself
            self.gradients.overlaps = False
            own(tensors, seeds, *args, **kwargs)
            return
        if self.resume is not None and self.resume.backward():
            self.repeat_backward()
            return
        # A model whose first call was not seen is laid out afterwards: its graph is of the weights as they are.
        where = self._choose()
        layout.check_backward(
            where, kwargs.get("inputs"), create_graph=bool(kwargs.get("create_graph") or args[1:2] == (True,))
        )
        share = self.share_of_backward()
        self._announce(share)
        alike.check(share, alike.Doing.backward)
        is_whole = share is self.undivided.share is None and where.data_ranks > 1
        if is_whole and not self.seen.has_new_modules and not self.self_check.is_running:
            self.say_once("whole", "no DataLoader gave this batch, every rank computes all of it: right, but no faster")
        roots = arrived((tensors,) if torch.is_tensor(tensors) else tuple(tensors))
        values = [_start_value(root, share) for root in roots]
        self.gradients.begin([under_way.plain(root) for root in roots], share, whole=not where.plan.shards)
        is_check = self.self_check.is_running
        with self.gradients.early(under_way.only(roots, seeds, args, kwargs), is_check=is_check):
            self._go_back(own, roots, asked.seeds(roots, seeds, share), *args, **kwargs)
            self.gradients.finish(is_check=is_check)
        for root, value in zip(roots, values, strict=True):
            _settle_value(root, value)
        self.settle()
        self.self_check.went_back(roots)

    def repeat_backward(self) -> None:
        """The script goes back on its way to the step of its checkpoint, where nothing is computed."""
        self.at_hand.went_back(is_exact=True, ranks=self.settle().data_ranks)

    def _go_back(self, own: Callable[..., None], roots: Sequence[torch.Tensor], *args: Any, **kwargs: Any) -> None:
        self.micro.memory.begin_backward()
        self.in_backward = True
        try:
            own([under_way.plain(root) for root in roots], *args, **kwargs)
        except torch.OutOfMemoryError as full:
            self.micro.memory.recover([under_way.plain(root) for root in roots], full)
        finally:
            self.in_backward = False
            self.micro.went_back()

    def grad(self, own: Callable[..., Any], words: dict[str, Any]) -> Any:
        """A `torch.autograd.grad` of the script, called with *words*."""
        under_way.arrive()
        with counts.plainly(words := arrived(words)):
            return asked.grad(self, own, words)

    def _announce(self, share: Share | None) -> None:
        if self.self_check.is_running:
            return
        found = share or self.undivided.share
        if found is not None and "batch" not in self._said:
            self.say_once("batch", introduction(found, by_hand=share is None))
        if self.rank == 0 and self.place is not None and not self._is_announced:
            plan, rows = self.place.plan, found.total if found else self.meter.batch
            announce(self.me.run, plan if self._has_blocks else layout.without_blocks(plan), rows)
        self._is_announced = True

    def share_of_backward(self) -> Share | None:
        """How the batch was cut that this backward is for; asked once for each."""
        of_loss, share = self.at_hand.loss_share, self.at_hand.loss_share or self.share
        self.at_hand.went_back(is_exact=of_loss is not None, ranks=self._choose().data_ranks)
        return going_back(share)

    def loss_at_hand(self, own: Share | None = None) -> Share | None:
        """How the batch at hand was cut, asked by a loss of a batch that was cut as *own* says.

        All gradients of a backward are averaged as one, as its last loss weighs the ranks.
        """
        self.at_hand.turn_to(own)
        share = None if self.is_repeating else own or self.share  # a batch fetched since may weigh otherwise
        if share and torch.is_grad_enabled():
            self.at_hand.note_loss(share)
        return share

    @property
    def is_repeating(self) -> bool:
        """Whether the script repeats, without computing, the steps up to its checkpoint."""
        return self.resume is not None and self.resume.replay is not None

    def number(self, scalar: torch.Tensor) -> torch.Tensor:
        """The global value of *scalar*: of a number that depends on the batch, the mean over the ranks' rows."""
        if self.share is None or marks.is_marked(scalar):
            return without_graph(scalar)
        alike.check(self.share, alike.Doing.number)
        return group.total(_weighted(scalar, self.share)).to(scalar.device, scalar.dtype)


def without_graph(scalar: torch.Tensor) -> torch.Tensor:
    """The value of *scalar* alone; `detach()` itself is ours and would ask all ranks."""
    with torch.no_grad():
        return scalar.clone()


def _weighted(scalar: torch.Tensor, share: Share) -> torch.Tensor:
    value = without_graph(scalar).to(accelerator.device(), torch.float64)
    # Not times 0 for a stand-in row: its value may be infinite.
    return value * share.weight if share.rows else torch.zeros_like(value)


def _start_value(root: torch.Tensor, share: Share | None) -> tuple[torch.Tensor, dist.Work] | None:
    """Start to add up the loss that backward starts from, unless it is the global one already."""
    if share is None or marks.is_marked(root) or not is_one_number(root, share):
        return None
    value = _weighted(root, share)
    return value, group.start_total(value)


def _settle_value(root: torch.Tensor, value: tuple[torch.Tensor, dist.Work] | None) -> None:
    """Make the loss the global one, for whoever prints it next."""
    if value is not None:
        value[1].wait()
        root.data.copy_(value[0])
        marks.mark(root)
