"""What codecs check, in Python and in C.

Left out: what a library checks once more behind us (the size, index and footer of our xz streams), and the ends of carriers,
whose data have checksums of their own.
"""

from __future__ import annotations

from .mutation import Mutation

GZIP = "codecs/gzip.py"
ZSTD = "codecs/zstd.py"
STRUCTURE = "codecs/zstd_structure.py"
LZ4 = "codecs/lz4.py"
SNAPPY = "codecs/snappy.py"
XZ = "codecs/xz.py"
XZ_BLOCKS = "codecs/xz_blocks.py"
LZOP = "codecs/lzop.py"
BZIP2 = "codecs/bzip2.py"
BLOCKS = "codecs/bzip2_blocks.py"

PAYLOADS = (
    # -- gzip
    Mutation(
        name="gzip-trailer",
        file=GZIP,
        old="        if frame[-_TRAILER.size :] != _TRAILER.pack(self._crc32(chunk), chunk_size):",
        new="        if False:",
        why="a member ends where its data do, with their checksum",
        tests=("contract/test_foreign.py::test_a_gzip_frame_ends_where_its_data_end",),
    ),
    Mutation(
        name="gzip-size-in-the-trailer",
        file=GZIP,
        old="self._decompress(frame, chunk_size or 1)",
        new="self._decompress(frame, chunk_size)",
        why="of a size of 0 the library would believe the trailer's, and allocate that",
        tests=("contract/test_foreign.py::test_an_empty_gzip_frame_does_not_trust_its_trailer",),
    ),
    Mutation(
        name="gzip-behind-the-last",
        file=GZIP,
        old='            if bytes(piece).strip(b"\\0"):',
        new="            if False:",
        why="nothing but zeros may follow the last member",
        tests=("contract/test_foreign.py::test_nothing_else_may_follow_gzip_members",),
    ),
    Mutation(
        name="gzip-cut-between-members",
        file=GZIP,
        old="        elif head == Gzip.magic[: len(head)] and (head or not self._started):",
        new="        elif False:",
        why="a payload that ends before a member does was cut",
        tests=("contract/test_codec.py::test_contract[gzip-sees_every_cut]",),
    ),
    Mutation(
        name="member-cut",
        file="codecs/members.py",
        old="                raise TruncatedError(",
        new="                raise DecodeError(",
        why="a payload that ends inside a member was cut, not damaged: copying it again may help",
        tests=("contract/test_codec.py::test_contract[gzip-sees_every_cut]",),
    ),
    # -- sized headers: gzip, snappy
    Mutation(
        name="sized-frame-size",
        file="codecs/sized.py",
        old="        if frame_size != len(frame):\n",
        new="        if False:\n",
        why="a frame is as large as it says",
        tests=(
            "contract/test_foreign.py::test_gzip_frame_sizes_that_cannot_be",
            "contract/test_foreign_snappy.py::test_every_bit_of_a_frames_header_counts",
        ),
    ),
    Mutation(
        name="sized-chunk-size",
        file="codecs/sized.py",
        old="        if chunk_size > room:\n",
        new="        if False:\n",
        why="no more is allocated for a chunk than there is room for, whatever it claims",
        tests=("contract/test_codec.py::test_contract[gzip-refuses_a_chunk_larger_than_its_room]",),
    ),
    Mutation(
        name="sized-prefix",
        file="codecs/sized.py",
        old="        if frame[: len(self.prefix)] != self.prefix:\n",
        new="        if False:\n",
        why="every bit of a frame's header counts",
        tests=("contract/test_foreign.py::test_every_bit_of_a_gzip_frames_header_counts",),
    ),
    Mutation(
        name="sized-splitter-bounds",
        file="codecs/sized.py",
        old="        if not self._header.smallest <= frame_size <= self._frame_bound or chunk_size > self._chunk_size:",
        new="        if not self._header.smallest <= frame_size:",
        why="a frame that fits no slot is for the sequential reader",
        tests=(
            "contract/test_foreign.py::test_gzip_frame_sizes_that_cannot_be",
            "contract/test_foreign.py::test_gzip_members_that_are_not_ours_are_not_split",
        ),
    ),
    # -- zstd
    Mutation(
        name="zstd-extra-data",
        file=ZSTD,
        old="allow_extra_data=False",
        new="allow_extra_data=True",
        why="nothing follows a frame inside its announced size",
        tests=("contract/test_foreign.py::test_a_zstd_announcement_covers_one_frame",),
    ),
    Mutation(
        name="zstd-announced-size",
        file=ZSTD,
        old="        if size != len(frame):\n",
        new="        if False:\n",
        why="a frame is as large as it is announced",
        tests=("contract/test_codec.py::test_contract[zstd-refuses_a_cut_or_extended_frame]",),
    ),
    Mutation(
        name="zstd-content-size",
        file=ZSTD,
        old="        if content_size > len(room):\n",
        new="        if False:\n",
        why="no more is allocated for a chunk than there is room for, whatever it claims",
        tests=("contract/test_codec.py::test_contract[zstd-refuses_a_chunk_larger_than_its_room]",),
    ),
    Mutation(
        name="zstd-empty",
        file=ZSTD,
        old="        if not content_size:\n            _check_empty(frame)",
        new="        if False:\n            _check_empty(frame)",
        why="the binding believes a size of 0 without another look",
        tests=("contract/test_foreign.py::test_a_zstd_frame_that_claims_to_be_empty",),
    ),
    Mutation(
        name="zstd-no-checksum",
        file=ZSTD,
        old="write_checksum=True",
        new="write_checksum=False",
        why="a flipped bit shows, with an index or without",
        tests=("contract/test_codec.py::test_contract[zstd-detects_every_flipped_bit]",),
    ),
    Mutation(
        name="zstd-swells",
        file=ZSTD,
        old="    if size == len(room) and reader.readinto(memoryview(bytearray(1))):",
        new="    if False:",
        why="a frame that does not say how large it is may decode to anything",
        tests=(
            "contract/test_foreign_zstd.py::test_a_frame_too_large_for_a_slot_is_read_from_its_start",
            "contract/test_foreign_zstd.py::test_an_unsized_frame_larger_than_its_room",
        ),
    ),
    Mutation(
        name="zstd-window",
        file=STRUCTURE,
        old="                if header.window > self._max_window:",
        new="                if False:",
        why="a window is memory: no more of it than was allowed",
        tests=(
            "contract/test_foreign_zstd.py::test_large_windows_are_allowed_by_the_option",
            "contract/test_foreign_zstd.py::test_what_long_mode_wrote_is_refused_until_it_is_allowed",
        ),
    ),
    Mutation(
        name="zstd-cut-between-frames",
        file=STRUCTURE,
        old="        elif self._to_skip or self._field or not self._between_frames:",
        new="        elif False:",
        why="the binding takes any end of its input for the end",
        tests=("contract/test_foreign_zstd.py::test_every_cut_shows",),
    ),
    Mutation(
        name="zstd-announced-frame",
        file=STRUCTURE,
        old="                self._between_frames = magic + length != SIZE_PREFIX",
        new="                self._between_frames = True",
        why="a frame has to follow its announcement",
        tests=(
            "contract/test_foreign.py::test_a_zstd_announcement_without_its_frame_is_a_cut",
            "contract/test_foreign_zstd.py::test_an_announced_frame_has_to_follow",
        ),
    ),
    # -- lz4
    Mutation(
        name="lz4-checksum",
        file=LZ4,
        old="        if len(chunk) != chunk_size or frame[-len(end) :] != end:",
        new="        if len(chunk) != chunk_size:",
        why="a frame decodes to what it was made of",
        tests=(
            "contract/test_codec.py::test_contract[lz4-detects_every_flipped_bit]",
            "contract/test_foreign_lz4.py::test_every_bit_of_a_frames_header_and_end_counts",
        ),
    ),
    Mutation(
        name="lz4-size",
        file=LZ4,
        old="        if len(chunk) != chunk_size or frame[-len(end) :] != end:",
        new="        if frame[-len(end) :] != end:",
        why="a frame holds as much as it says",
        tests=("contract/test_foreign_lz4.py::test_a_frame_holds_what_it_claims",),
    ),
    Mutation(
        name="lz4-header",
        file=LZ4,
        old="        if frame[: _HEADER.size] != _header(chunk_size, block_size, self._xxh32):",
        new="        if False:",
        why="every bit of a frame's header counts",
        tests=("contract/test_foreign_lz4.py::test_every_bit_of_a_frames_header_and_end_counts",),
    ),
    Mutation(
        name="lz4-room",
        file=LZ4,
        old="        if chunk_size > len(room):\n",
        new="        if False:\n",
        why="no more is decoded than there is room for",
        tests=("contract/test_codec.py::test_contract[lz4-refuses_a_chunk_larger_than_its_room]",),
    ),
    Mutation(
        name="lz4-skippable-cut",
        file=LZ4,
        old='            if not piece:\n                raise TruncatedError("the payload ends inside a skippable lz4 frame")',
        new="            if not piece:\n                return",
        why="a payload that ends inside a skippable frame was cut",
        tests=("contract/test_foreign_lz4.py::test_a_cut_skippable_frame",),
    ),
    # -- snappy
    Mutation(
        name="snappy-size",
        file=SNAPPY,
        old="        if size != chunk_size:\n",
        new="        if False:\n",
        why="a stream holds as much as it says, since nothing marks its end",
        tests=("contract/test_foreign_snappy.py::test_a_frame_holds_what_it_claims",),
    ),
    Mutation(
        name="snappy-cut-between-chunks",
        file=SNAPPY,
        old="            if not head and not self._announced and not self._missing:",
        new="            if not head and not self._announced:",
        why="the same for a stream that is read from its start",
        tests=("contract/test_foreign_snappy.py::test_a_cut_between_two_chunks_of_one_of_our_frames_shows",),
    ),
    Mutation(
        name="snappy-data-size",
        file=SNAPPY,
        old="        if size > _DATA_MAX:\n",
        new="        if False:\n",
        why="no more is read for a chunk of 64 KiB than that can become",
        tests=("contract/test_foreign_snappy.py::test_chunks_that_claim_more_than_64_kib",),
    ),
    Mutation(
        name="snappy-reserved",
        file=SNAPPY,
        old="        elif kind in _RESERVED:\n            raise DecodeError",
        new="        elif False:\n            raise DecodeError",
        why="a chunk whose kind was damaged is not skipped",
        tests=("contract/test_foreign_snappy.py::test_kinds_that_must_not_be_skipped",),
    ),
    # -- xz
    Mutation(
        name="xz-head",
        file=XZ,
        old="    if view[:_HEADER_SIZE] != _head(data_size, chunk_size):\n",
        new="    if False:\n",
        why="the same in front of them",
        tests=(
            "contract/test_foreign_xz.py::test_every_bit_around_the_data_counts",
            "contract/test_foreign_xz.py::test_block_headers_that_are_not_ours",
        ),
    ),
    Mutation(
        name="xz-memory",
        file=XZ,
        old=", memlimit=_MEMORY_MAX)",
        new=")",
        why="a dictionary is memory: no more of it than 128 MiB",
        tests=("contract/test_foreign_xz.py::test_dictionaries_that_the_reader_takes_and_those_it_does_not",),
    ),
    Mutation(
        name="xz-index-of-other-blocks",
        file=XZ_BLOCKS,
        old="        if records_crc != self._records_crc or self._take(12)",
        new="        if self._take(12)",
        why="an index is that of the blocks before it",
        tests=("contract/test_foreign_xz_blocks.py::test_an_index_of_other_blocks_shows",),
    ),
    Mutation(
        name="xz-index-count",
        file=XZ_BLOCKS,
        old="        if self._take(len(head)) != head:\n",
        new="        if not self._take(len(head)):\n",
        why="the same for their number",
        tests=("contract/test_foreign_xz_blocks.py::test_an_index_of_another_number_of_blocks_shows",),
    ),
    Mutation(
        name="xz-block-bound",
        file=XZ_BLOCKS,
        old="            if content_size > self.chunk_bound or position > limit:\n",
        new="            if position > limit:\n",
        why="no block is decoded into a slot that does not hold it",
        tests=(
            "contract/test_foreign_xz_blocks.py::test_a_later_block_that_is_too_large_is_told",
            "contract/test_foreign_xz_blocks.py::test_a_stream_whose_first_block_is_too_large_is_read_from_its_start",
        ),
    ),
    # -- lzop
    Mutation(
        name="lzop-adler",
        file=LZOP,
        old="            if self._adler32(block) != checksum:\n",
        new="            if False:\n",
        why="a block decodes to what it was made of",
        tests=("contract/test_codec.py::test_contract[lzop-detects_every_flipped_bit]",),
    ),
    Mutation(
        name="lzop-foreign-checks",
        file="codecs/lzop_reader.py",
        old='            if check(block) != expected:\n                raise DecodeError("a checksum of an lzop block is wrong")',
        new='            if False:\n                raise DecodeError("a checksum of an lzop block is wrong")',
        why="the same for what lzop wrote",
        tests=("contract/test_foreign_lzop.py::test_every_choice_of_checksums",),
    ),
    Mutation(
        name="lzop-foreign-data-checks",
        file="codecs/lzop_reader.py",
        old="            if check(data) != expected:\n",
        new="            if False:\n",
        why="the same for checksums of the compressed data",
        tests=("contract/test_foreign_lzop.py::test_every_choice_of_checksums",),
    ),
    Mutation(
        name="lzop-header",
        file="codecs/lzop_container.py",
        old="    if check(take(name_size), check(fields)) != U32.unpack(take(U32.size))[0]:\n",
        new="    take(name_size)\n    take(U32.size)\n    if False:\n",
        why="a header's flags say what follows: they are under a checksum",
        tests=(
            "contract/test_foreign_lzop.py::test_headers_that_are_refused",
            "contract/test_foreign_lzop.py::test_damage_in_what_lzop_wrote_is_seen",
        ),
    ),
    Mutation(
        name="lzop-sizes",
        file="codecs/lzop_container.py",
        old="    if not (0 < data_size <= size <= largest and size <= data_size * _LARGEST_GAIN + BLOCK_SIZE):",
        new="    if not (0 < data_size <= size <= largest):",
        why="no more is allocated for a block than its data can become",
        tests=(
            "contract/test_foreign_lzop.py::test_sizes_that_cannot_be",
            "contract/test_foreign_lzop.py::test_hostile_sizes_take_no_memory",
        ),
    ),
    Mutation(
        name="lzop-lost-start",
        file="codecs/lzop_reader.py",
        old="        elif _resembles_a_start(head):\n",
        new="        elif False:\n",
        why="a flipped bit in a file's magic would lose all that follows",
        tests=("contract/test_foreign_lzop.py::test_no_damaged_start_loses_a_file_in_silence",),
    ),
    # -- bzip2
    Mutation(
        name="bzip2-stream-checksum",
        file=BLOCKS,
        old="        if piece.checksum != self._checksum:\n",
        new="        if False:\n",
        why="blocks that are missing, or in another order, show",
        tests=("contract/test_foreign_bzip2.py::test_blocks_in_another_order_show",),
    ),
    Mutation(
        name="bzip2-cut",
        file=BLOCKS,
        old="        if self._joint or self._in_stream:\n            raise TruncatedError",
        new="        if False:\n            raise TruncatedError",
        why="a payload that ends inside a stream was cut",
        tests=("contract/test_foreign_bzip2.py::test_every_cut_of_a_foreign_payload_shows",),
    ),
    Mutation(
        name="bzip2-lost-start",
        file=BLOCKS,
        old="        if _resembles_a_start(head):\n",
        new="        if False:\n",
        why="a flipped bit in a stream's magic would lose all that follows",
        tests=("contract/test_foreign.py::test_a_damaged_bzip2_start_loses_no_data_in_silence",),
    ),
    Mutation(
        name="bzip2-followed",
        file=BZIP2,
        old="        if size == self._decompressor.FOLLOWED:\n            raise DecodeError",
        new='        if size == self._decompressor.FOLLOWED:\n            return b""\n            raise DecodeError',
        why="nothing follows a stream inside its frame",
        tests=("contract/test_codec.py::test_contract[bzip2-refuses_a_cut_or_extended_frame]",),
    ),
)
