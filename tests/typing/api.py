"""The public API as its users type it. Never run; ``make lint`` checks it, as it would their code."""

from __future__ import annotations

import socket
from pathlib import Path

import streamsave


def on_progress(progress: streamsave.Progress) -> None:
    print(f"{progress.stage} {progress.fraction:.0%} {progress.bytes_in} {progress.rate_in:.0f}")


def saves(sock: socket.socket) -> streamsave.SaveReport:
    cancel = streamsave.Cancellation()
    options = streamsave.SaveOptions(
        format="zstd",
        level=3,
        threads=None,
        then="resume",
        transport="unix",
        save_command=False,
        timeout_s=60,
        max_stopped_s=2.5,
        bypass_cache=True,
    )
    streamsave.save(sock, Path("guest.save"))
    streamsave.save(sock, 7, streamsave.SaveOptions(stream=True))
    return streamsave.save("/run/vm.qmp", "guest.save", options, progress=on_progress, cancel=cancel)


def restores() -> int | None:
    report: streamsave.RestoreReport = streamsave.restore("guest.save", command=["qemu-system-x86_64"])
    streamsave.restore(
        Path("guest.save"), monitor="/run/vm.qmp", options=streamsave.RestoreOptions(state="paused", timeout_s=30)
    )
    streamsave.restore(7, monitor="/run/vm.qmp")
    return report.process.wait() if report.process is not None else None


def domains() -> tuple[bool, bool]:
    saved: streamsave.SaveReport = streamsave.save_domain(
        "web", Path("web.save"), streamsave.SaveOptions(format="gzip"), connect="qemu:///system", progress=on_progress
    )
    restored: streamsave.RestoreReport = streamsave.restore_domain(
        "web.save", streamsave.RestoreOptions(state="paused"), xml="<domain/>", reset_nvram=True
    )
    return saved.was_running, restored.running


def streams(fd: int) -> float:
    report = streamsave.save_stream(
        fd,
        "guest.save",
        streamsave.Metadata("<domain/>"),
        streamsave.CompressOptions(level="auto"),
        was_running=True,
        confirm=lambda stream: print(stream.machine),
    )
    streamsave.restore_stream("guest.save", fd, threads=2, timeout_s=5.0)
    return report.ratio


def converts(fd: int) -> bool:
    report: streamsave.ConvertReport = streamsave.convert("guest.save", fd)
    options = streamsave.CompressOptions(format="gzip", level=6)
    streamsave.convert(fd, Path("new.save"), options, xml="<domain/>", state="paused", progress=on_progress)
    return report.root_compared


def edits() -> bool:
    report: streamsave.EditReport = streamsave.edit("guest.save", xml=lambda xml: xml.replace("a", "b"), state="running")
    return streamsave.edit(Path("guest.save"), xml="<domain/>").changed or report.rewritten


def reads_pages() -> bytes:
    with streamsave.open_stream(Path("guest.save")) as stream:
        ram: streamsave.GuestRam = stream.ram
        largest: streamsave.RamBlock = max(ram.blocks, key=lambda block: block.size)
        page: streamsave.PageContents = ram.locate(largest.name, largest.size - 1)
        found: streamsave.StreamMap = ram.map
        if page.kind is streamsave.PageKind.WHOLE and found.pages_in_order:
            stream.seek(page.stream_offset)
            return stream.read(ram.page_size)
        return ram.read(largest.name, page.page_offset, ram.page_size)


def looks() -> str:
    info: streamsave.ImageInfo = streamsave.read_info("guest.save")
    chunk_size: int = streamsave.find_codec("gzip").chunk_size
    try:
        return f"{info.metadata.xml} {info.header.was_running} {chunk_size}"
    except streamsave.Aborted as error:
        return f"{error.signum}"
    except streamsave.StreamsaveError as error:
        return f"{error.exit_status}"


def misuse() -> None:
    streamsave.SaveOptions(then="explode")  # type: ignore[arg-type]
    streamsave.SaveOptions("zstd")  # type: ignore[call-arg]
    streamsave.save("/run/vm.qmp")  # type: ignore[call-arg]
