"""What is believed of an image: header, metadata, XML, index, digests, the stream's structure in Python."""

from __future__ import annotations

from .mutation import Mutation

HEADER = "format/header.py"
METADATA = "format/metadata.py"
XML = "format/domain_xml.py"
SCANNER = "format/scanner.py"

IMAGES = (
    # -- header
    Mutation(
        name="header-magic",
        file=HEADER,
        old="    if flags is None:\n",
        new="    if flags is None:\n        flags = (True, False)\n    if False:\n",
        why="another file is no image",
        tests=("unit/test_header.py::test_what_cannot_be_is_refused",),
    ),
    Mutation(
        name="header-partial-is-complete",
        file=HEADER,
        old="    MAGIC_PARTIAL: (False, False),",
        new="    MAGIC_PARTIAL: (True, False),",
        why="an image that was never finished is not restored",
        tests=("unit/test_header.py::test_partial_and_complete_differ_in_the_magic_only",),
    ),
    Mutation(
        name="header-cut",
        file=HEADER,
        old="    if len(data) < HEADER_SIZE:\n        raise _truncated(data)\n",
        new="    data = data.ljust(HEADER_SIZE, bytes(1))\n",
        why="half a header is none",
        tests=(
            "unit/test_header.py::test_what_cannot_be_is_refused",
            "property/test_format.py::test_anything_is_a_header_or_an_error_with_its_place",
        ),
    ),
    Mutation(
        name="header-version",
        file=HEADER,
        old="    if version > VERSION:\n",
        new="    if False:\n",
        why="what a later version means nobody knows",
        tests=("unit/test_header.py::test_a_later_version_is_refused",),
    ),
    Mutation(
        name="header-old-version",
        file=HEADER,
        old="        return self.format if self.version == VERSION else SaveFormat.RAW",
        new="        return self.format",
        why="before version 2 the payload is raw, whatever the header says",
        tests=("unit/test_header.py::test_old_versions_are_never_decompressed",),
    ),
    Mutation(
        name="header-data-size",
        file=HEADER,
        old="    if not 0 < data_size <= MAX_DATA_SIZE:",
        new="    if not 0 < data_size:",
        why="no more is allocated than an image may have, whatever it claims",
        tests=("unit/test_header.py::test_what_cannot_be_is_refused",),
    ),
    Mutation(
        name="header-cookie-offset",
        file=HEADER,
        old="    if cookie_offset >= data_size:",
        new="    if False:",
        why="a cookie beyond the metadata is damage",
        tests=("unit/test_header.py::test_what_cannot_be_is_refused",),
    ),
    Mutation(
        name="header-byte-order",
        file=HEADER,
        old="> VERSION >= int.from_bytes(data[_VERSION], other):",
        new="> VERSION >= 0 > int.from_bytes(data[_VERSION], other):",
        why="an image of a host of the other byte order is read",
        tests=("unit/test_header.py::test_the_other_byte_order",),
    ),
    # -- metadata
    Mutation(
        name="metadata-cut",
        file="operations/image.py",
        old="        if end < header.payload_offset:\n",
        new="        if False:\n",
        why="a file that ends inside its metadata was cut",
        tests=("system/test_bad_images.py::test_cuts_in_header_and_metadata",),
    ),
    Mutation(
        name="metadata-xml-without-end",
        file=METADATA,
        old="    if xml_end < 0:\n",
        new="    if False:\n",
        why="a text without its NUL was cut, or the header is damaged",
        tests=("unit/test_metadata.py::test_texts_without_an_end",),
    ),
    Mutation(
        name="metadata-cookie-in-the-xml",
        file=METADATA,
        old='data.find(b"\\0", 0, cookie_offset or len(data))',
        new='data.find(b"\\0", 0)',
        why="a cookie inside the XML is damage",
        tests=("unit/test_metadata.py::test_texts_without_an_end",),
    ),
    Mutation(
        name="metadata-cookie-without-end",
        file=METADATA,
        old="    if cookie_end < 0:\n",
        new="    if False:\n",
        why="the same as for the XML",
        tests=("unit/test_metadata.py::test_texts_without_an_end",),
    ),
    Mutation(
        name="metadata-nul-written",
        file=METADATA,
        old='    if b"\\0" in data:\n',
        new="    if False:\n",
        why="a reader would take the rest of the text for padding",
        tests=("unit/test_metadata.py::test_texts_that_no_reader_would_find_again_are_refused",),
    ),
    Mutation(
        name="metadata-too-long-written",
        file=METADATA,
        old="    if payload_offset - HEADER_SIZE > MAX_DATA_SIZE:",
        new="    if False:",
        why="no image is written that is refused when it is read",
        tests=("unit/test_metadata.py::test_texts_that_no_reader_would_find_again_are_refused",),
    ),
    # -- XML
    Mutation(
        name="xml-document-type",
        file=XML,
        old='        raise CorruptImageError("the domain XML has a document type',
        new='        return  # CorruptImageError("the domain XML has a document type',
        why="entities grow without bound, or name files",
        tests=("unit/test_description.py::test_document_types_are_refused_at_once",),
    ),
    Mutation(
        name="xml-size",
        file=XML,
        old="    if len(xml) > MAX_XML:",
        new="    if False:",
        why="a tree takes many times its text's memory",
        tests=(
            "system/test_hostile.py::test_metadata_as_long_as_it_may_be",
            "system/test_edit.py::test_what_cannot_be_is_refused",
        ),
    ),
    Mutation(
        name="xml-another-guest",
        file=XML,
        old="        if was and was != is_now:",
        new="        if False:",
        why="libvirt would not restore an image under another name or UUID",
        tests=("system/test_edit.py::test_what_cannot_be_is_refused",),
    ),
    Mutation(
        name="xml-another-root",
        file=XML,
        old='    if new.tag != "domain":',
        new="    if False:",
        why="a network's XML is none of a domain",
        tests=("system/test_convert.py::test_another_guests_xml_is_refused",),
    ),
    Mutation(
        name="command-base64",
        file="format/description.py",
        old="        return base64.b64decode(text, validate=True)",
        new="        return base64.b64decode(text)",
        why="a damaged command line is told from none",
        tests=("unit/test_description.py::test_broken_base64_in_the_command",),
    ),
    # -- the image as a whole
    Mutation(
        name="image-incomplete",
        file="operations/image.py",
        old="        if not self.info.header.complete:\n",
        new="        if False:\n",
        why="an image that was never finished is not restored",
        tests=("system/test_verify.py::test_others",),
    ),
    Mutation(
        name="image-no-file",
        file="operations/image.py",
        old="    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):\n        return fd, path\n",
        new="    if not stat.S_ISDIR(mode):\n        return fd, path\n",
        why="a FIFO would block, or never end",
        tests=("system/test_bad_images.py::test_not_a_file",),
    ),
    Mutation(
        name="image-stream-end",
        file="operations/image.py",
        old="        if not stream.well_formed_end:\n            raise TruncatedImageError",
        new="        if False:\n            raise TruncatedImageError",
        why="a payload that ends in order may still not hold a whole stream",
        tests=("system/test_verify.py::test_a_stream_that_is_not_all_of_one",),
    ),
    Mutation(
        name="image-limited",
        file="endpoints/limited.py",
        old="        got = self._source.readinto(view[: self._left])",
        new="        got = self._source.readinto(view)",
        why="the index behind a raw payload in a pipe is none of it",
        tests=("system/test_convert.py::test_a_finished_image_through_a_pipe_is_held_against_its_index[raw]",),
    ),
    Mutation(
        name="image-part",
        file="endpoints/limited.py",
        old="readinto_at(view[: max(0, self._size - offset)], ",
        new="readinto_at(view, ",
        why="the same in a file",
        tests=(
            "system/test_verify.py::test_a_damaged_index_is_damage[raw]",
            "unit/test_indexed.py::test_a_part_of_a_source_ends_where_it_does",
        ),
    ),
    # -- the structure of a stream, in the reference
    Mutation(
        name="stream-described-end",
        file="format/migration.py",
        old="    described = state.phase == Phase.OPAQUE and state.description_end == state.size",
        new="    described = state.phase == Phase.OPAQUE and state.description_end >= 0",
        why="a description reaches exactly to the last byte",
        tests=(
            "unit/test_migration.py::test_a_stream_that_goes_on_is_not_whole",
            "unit/test_migration.py::test_why_a_cut_stream_is_not_whole",
        ),
    ),
    Mutation(
        name="stream-foreign",
        file=SCANNER,
        old="Phase.STRUCTURE if data == MAGIC else Phase.FOREIGN",
        new="Phase.STRUCTURE",
        why="other bytes are no migration stream",
        tests=("unit/test_migration.py::test_something_else",),
    ),
    Mutation(
        name="stream-blocks",
        file=SCANNER,
        old="        if len(self._state.blocks) == MAX_BLOCKS or not 0 < size <= self._ram_left:",
        new="        if not 0 < size <= self._ram_left:",
        why="the number of blocks is bounded, whatever a stream claims",
        tests=("unit/test_migration.py::test_the_number_of_blocks_is_bounded",),
    ),
    Mutation(
        name="stream-map-cut",
        file="format/stream_map.py",
        old='        if position + _SIZE.size > len(data):\n            raise ValueError("a stream map that breaks off")\n',
        new="",
        why="a map that breaks off is none",
        tests=("unit/test_index.py::test_every_cut_of_a_stream_map_shows",),
    ),
)
