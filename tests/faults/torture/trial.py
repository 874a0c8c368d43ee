"""One trial: the scene is set, the process runs, the fault strikes, the checker looks, the scene is cleared."""

from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from ...kit.cli import Result, Run
from ...kit.disk import CannotMount
from .check_restore import attend, check_restore, own_command
from .check_save import check_save
from .client import GO, SIGNALLED, Order
from .faults import SOME_TIME
from .scene import Outcome, Scene, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from .plan import Plan
    from .world import World

END_S: Final = 60.0
"""No trial takes longer; what does hangs."""
CLIENT: Final = "tests.faults.torture.client"


def run_trial(world: World, plan: Plan) -> Outcome:
    """All of it; raises nothing but what ends the campaign."""
    began = time.monotonic()
    try:
        world.begin()
        with ExitStack() as stack:
            outcome = _perform(set_up(world, plan, stack))
    except CannotMount as error:
        return Outcome(plan, impossible=str(error))
    except Exception:
        world.drop_guest()
        return Outcome(plan, broken=(f"the campaign itself failed:\n{traceback.format_exc()}",))
    return Outcome(**{**outcome.__dict__, "took_s": time.monotonic() - began})


def _perform(scene: Scene) -> Outcome:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scene.run = Run([_order(scene, theirs.fileno()), *_arguments(scene)], module=CLIENT, pass_fds=[theirs.fileno()])
        theirs.close()
        deadline = time.monotonic() + END_S
        following = threading.Thread(target=_follow, args=(scene, ours, deadline))
        following.start()
        try:
            if scene.fault.restores:
                attend(scene, deadline)
            result = _finish(scene, deadline)
        finally:
            following.join()
            if scene.timer is not None:
                scene.timer.join()
    committed = (check_restore if scene.fault.restores else check_save)(scene, result)
    if scene.broken:
        scene.world.drop_guest()
    return Outcome(scene.plan, result.status, committed, tuple(scene.broken), said=result.err.strip(), freed_s=scene.freed_s)


def _finish(scene: Scene, deadline: float) -> Result:
    try:
        return scene.run.finish(max(1.0, deadline - time.monotonic()))
    except AssertionError as error:
        scene.broken.append(f"hangs: {error}")
        return Result(scene.run.process.returncode, "", str(error))


def _order(scene: Scene, control_fd: int) -> str:
    plan, fault = scene.plan, scene.fault
    instant = "" if plan.instant == SOME_TIME else plan.instant
    seed = f"{plan.seed} {plan.number}"
    return Order(control_fd, fault.restores, fault.inner, plan.amount, seed, instant, plan.part).encode()


def _arguments(scene: Scene) -> list[str | Path]:
    plan, fault = scene.plan, scene.fault
    common: list[str | Path] = ["--quiet", "--threads", str(plan.threads), "--transport", plan.transport, *fault.options]
    if not fault.restores:
        level = [] if plan.level is None else ["--level", str(plan.level)]
        how = ["--format", plan.format, *level, "--then", plan.then]
        return ["save", "--qmp", scene.monitor, scene.image, *how, *common]
    if scene.incoming is not None:
        return ["restore", "--qmp", scene.monitor, scene.image, *common]
    return ["restore", scene.image, *common, "--", *own_command(scene)]


def _follow(scene: Scene, control: socket.socket, deadline: float) -> None:
    """Beside the process: strike when it is where it is to be struck, and hear its last words."""
    control.settimeout(max(1.0, deadline - time.monotonic()))
    try:
        with control.makefile("r") as lines:
            for line in lines:
                what, *words = json.loads(line)
                if what == "left":
                    scene.left = words
                elif what == "in front":
                    scene.in_front = True
                elif what == "ready" and scene.plan.instant == SOME_TIME:
                    time.sleep(scene.plan.after_s)
                    _strike(scene, SOME_TIME)
                elif what == "here":
                    _strike(scene, scene.plan.instant)
                    control.sendall(SIGNALLED if scene.signalled else GO)
                    if scene.fault.then is not None:
                        scene.fault.then(scene)
    except OSError:
        pass  # it died, or hangs
    except Exception:
        scene.broken.append(f"the fault could not strike:\n{traceback.format_exc()}")


def _strike(scene: Scene, instant: str) -> None:
    assert scene.fault.strike is not None
    scene.here = instant
    try:
        scene.fault.strike(scene)
    except ProcessLookupError:
        pass  # it has ended: some time was too late
    scene.struck = True
