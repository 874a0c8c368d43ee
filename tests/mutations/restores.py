"""What happens to a QEMU that a guest is restored into, and to settings that are somebody else's."""

from __future__ import annotations

from .mutation import Mutation

RESTORE = "operations/restore.py"
MIGRATION = "qemu/migration.py"
SETTINGS = "qemu/settings.py"
TRANSPORT = "qemu/transport.py"
PROCESS = "qemu/process.py"

RESTORES = (
    # -- settings
    Mutation(
        name="settings-multifd",
        file=SETTINGS,
        old='    "multifd": False,',
        new='    "multifd": True,',
        why="the stream is one that every QEMU loads, and virsh restores",
        tests=("system/test_states.py::test_settings_survive_a_save[running-resume-fd]",),
    ),
    Mutation(
        name="settings-bandwidth",
        file=SETTINGS,
        old='    "max-bandwidth": 0,',
        new='    "max-bandwidth": 128 << 20,',
        why="by default QEMU sends no more than 128 MiB/s, of a guest that stands still, too",
        tests=(
            "system/test_migration.py::test_settings_go_and_come_back",
            "system/test_migration.py::test_settings_that_are_as_wanted_are_not_written",
        ),
    ),
    Mutation(
        name="settings-undo",
        file=SETTINGS,
        old="        return list(self._undo)",
        new="        return []",
        why="QEMU's settings are its owner's",
        tests=("system/test_states.py::test_failed_save_changes_nothing[in the stream-running-fd]",),
    ),
    Mutation(
        name="settings-undo-values",
        file=SETTINGS,
        old="    return {name: value if new else have[name] for",
        new="    return {name: value for",
        why="put back is what was there before",
        tests=("system/test_migration.py::test_settings_go_and_come_back",),
    ),
    # -- into a QEMU
    Mutation(
        name="restore-run-state",
        file=TRANSPORT,
        old='    if run_state != "inmigrate" or migration_status(monitor) != "none":',
        new="    if False:",
        why="a guest that runs, or waits for somebody else's stream, is not touched",
        tests=("system/test_migration.py::test_restoring_into_a_guest_that_runs_leaves_it_running",),
    ),
    Mutation(
        name="restore-stop",
        file=TRANSPORT,
        old='        monitor.execute("stop")\n',
        new="        pass\n",
        why="the guest does not run before QEMU said that all of it is loaded, and we that it shall",
        tests=("system/test_fd_api.py::test_a_guest_whose_stream_says_that_it_runs",),
    ),
    Mutation(
        name="restore-qemus-word",
        file=RESTORE,
        old="            wait_incoming(qmp, OUTCOME_TIMEOUT_S)\n",
        new="            with suppress(IncomingError):\n                wait_incoming(qmp, OUTCOME_TIMEOUT_S)\n",
        why="success is QEMU's word",
        tests=("faults/test_restore_faults.py::test_qemu_dies_after_the_last_byte",),
    ),
    Mutation(
        name="restore-not-completed",
        file=MIGRATION,
        old='    if status.get("status") != "completed":\n        raise IncomingError',
        new='    if status.get("status") == "none":\n        raise IncomingError',
        why="failed is an end, too",
        tests=("unit/test_outcomes.py::test_every_other_end_is_a_failure",),
    ),
    Mutation(
        name="restore-always-cont",
        file=RESTORE,
        old='                    if running:\n                        qmp.execute("cont")',
        new='                    qmp.execute("cont")',
        why="a guest that was paused, or is to be, is",
        tests=("system/test_states.py::test_guest_after_a_restore[paused-None]",),
    ),
    Mutation(
        name="restore-cont-interruptible",
        file=RESTORE,
        old="                with qmp.uninterrupted():  # QEMU holds",
        new="                if True:  # QEMU holds",
        why="a guest that is loaded is not thrown away any more",
        tests=("faults/test_restore_faults.py::test_cancelled_too_late",),
    ),
    Mutation(
        name="restore-not-let-live",
        file=RESTORE,
        old="                    self._guardian.let_live()",
        new="                    pass",
        why="a guest that may run does not end with the process that restored it",
        tests=("faults/test_leftovers.py::test_kill_9_after_a_restore_leaves_its_guest[let go]",),
    ),
    Mutation(
        name="restore-qemu-not-watched",
        file=RESTORE,
        old="on_start=guardian.end_with_us)",
        new="on_start=lambda _fd: None)",
        why="a QEMU that waits for the rest of a stream ends with who restores",
        tests=("faults/test_leftovers.py::test_kill_9_of_a_restore_ends_its_qemu",),
    ),
    Mutation(
        name="restore-process-left",
        file=RESTORE,
        old="                    process.terminate()\n                    raise",
        new="                    raise",
        why="a QEMU that was started for a restore that failed is ended",
        tests=("faults/test_restore_faults.py::test_cancelled_in_mid_restore[ours]",),
    ),
    Mutation(
        name="restore-joined-first",
        file="operations/outflow.py",
        old="            self.pipeline.fail(error)\n            raise\n",
        new="            self.pipeline.fail(error)\n            self.join()\n            raise\n",
        why="a read from a dead disk cannot be woken: QEMU is ended before any thread is waited for",
        tests=("faults/test_restore_faults.py::test_cancelled_while_the_disk_hangs",),
    ),
    Mutation(
        name="restore-settings-put-back",
        file=RESTORE,
        old="            settings.restore()\n",
        new="            pass\n",
        why="QEMU's settings are its owner's",
        tests=("system/test_states.py::test_settings_survive_a_restore",),
    ),
    Mutation(
        name="restore-settings-put-back-after-failure",
        file=RESTORE,
        old="                    _put_back(qmp, settings)\n",
        new="                    pass\n",
        why="the same, for a QEMU that is not ours and lives on",
        tests=("system/test_states.py::test_settings_survive_a_restore_that_fails",),
    ),
    Mutation(
        name="restore-refused-setting",
        file=RESTORE,
        old="    except CommandError as error:\n        return (",
        new="    except ZeroDivisionError as error:\n        return (",
        why="a setting that is refused is no reason to throw the guest away",
        tests=("faults/test_restore_faults.py::test_settings_that_cannot_be_put_back_are_a_warning",),
    ),
    Mutation(
        name="restore-command-fights",
        file=PROCESS,
        old="        if name in REFUSED:\n            raise UsageError",
        new="        if False:\n            raise UsageError",
        why="a command that says itself where the stream comes from is refused",
        tests=("system/test_process.py::test_options_that_fight_a_restore_are_refused",),
    ),
    Mutation(
        name="restore-process-unkillable",
        file=PROCESS,
        old="        process.kill()\n        process.wait()\n",
        new="        process.wait()\n",
        why="a QEMU that ignores SIGTERM is killed",
        tests=("system/test_process.py::test_one_that_ignores_sigterm_is_killed",),
    ),
    Mutation(
        name="descriptor-left-in-qemu",
        file=TRANSPORT,
        old="        _forget_descriptor(monitor, name)\n",
        new="",
        why="a descriptor that QEMU was given and does not use is closed",
        tests=("system/test_migration.py::test_a_refused_migration_leaves_no_descriptor_in_qemu",),
    ),
    Mutation(
        name="monitor-peer-believed",
        file="qemu/peer.py",
        old='        if not wanted or any(not (process / "task" / each).is_dir() for each in wanted):\n            return None\n',
        new="",
        why="who listens at a socket is not always the QEMU: its command line would be another program's",
        tests=(
            "system/test_peer.py::test_threads_that_are_not_there",
            "system/test_peer.py::test_a_monitor_whose_listener_is_not_qemu",
        ),
    ),
)
