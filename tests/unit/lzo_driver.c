/* Decompresses what it is given, and compresses it and back, in memory that ends where the data end, so that the sanitizers
 * see every byte touched beyond. What does not come back the same ends the program.
 *
 *     lzo_driver COUNT FILE...   each file, and COUNT damaged copies of them, always the same ones
 *
 * With clang -fsanitize=fuzzer,address,undefined -DLIBFUZZER it is a fuzzer: lzo_fuzzer FOLDER.
 */
#include "lzo.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *room_of(size_t size)
{
    void *room = malloc(size ? size : 1);
    if (!room)
        abort();
    memset(room, 0xa5, size);
    return room;
}

static uint8_t *copy_of(const uint8_t *data, size_t size)
{
    uint8_t *copy = room_of(size);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static void decompress(const uint8_t *data, size_t size, size_t out_size)
{
    uint8_t *in = copy_of(data, size), *out = room_of(out_size);
    ss_lzo_decompress(in, size, out, out_size);
    free(out);
    free(in);
}

static void there_and_back(const uint8_t *data, size_t size, int how)
{
    static ss_lzo_table table;
    static ss_lzo_finder finder;
    uint8_t *in = copy_of(data, size), *packed = room_of(ss_lzo_bound(size)), *out = room_of(size);
    size_t packed_size = how < 2 ? ss_lzo_compress(in, size, packed, &table, how)
                                 : ss_lzo_compress_best(in, size, packed, &finder, (uint32_t)how);
    uint8_t *exact = copy_of(packed, packed_size);
    if (packed_size > ss_lzo_bound(size) || !ss_lzo_decompress(exact, packed_size, out, size) || memcmp(out, in, size) != 0)
        abort();
    free(exact);
    free(out);
    free(packed);
    free(in);
}

/* The first two bytes say how many bytes the others are taken to hold. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= 2)
        decompress(data + 2, size - 2, (size_t)data[0] << 8 | data[1]);
    there_and_back(data, size, 0);
    there_and_back(data, size, 1);
    if (size % 8 == 0) /* it takes longer: its tables have to be cleared */
        there_and_back(data, size, 8);
    return 0;
}

#ifndef LIBFUZZER
static uint64_t random_state = 0x9e3779b97f4a7c15;

static size_t below(size_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state >> 11) % limit;
}

/* Bytes that are likely to mean something else: any, zeros (lengths that go on), the smallest, the end. */
static uint8_t some_byte(void)
{
    return (uint8_t)(below(2) ? below(256) : below(2) ? 0 : 16 + below(3));
}

static size_t damage(uint8_t *data, size_t size)
{
    for (size_t hits = 1 + below(4); hits && size; hits--) {
        size_t at = below(size), run = below(4) ? 1 : 1 + below(size - at < 300 ? size - at : 300);
        uint8_t byte = some_byte();
        for (size_t i = 0; i < run; i++)
            data[at + i] = run > 1 ? byte : some_byte();
    }
    return size && !below(3) ? below(size) : size;
}

int main(int argc, char **argv)
{
    enum { LARGEST = 1 << 20 };
    uint8_t *buffer = malloc(LARGEST);
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    if (!buffer)
        return 1;
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return 1;
        size_t size = fread(buffer, 1, LARGEST, file);
        fclose(file);
        LLVMFuzzerTestOneInput(buffer, size);
        for (size_t turn = 0; turn < count; turn++) {
            uint8_t *damaged = copy_of(buffer, size);
            LLVMFuzzerTestOneInput(damaged, damage(damaged, size));
            free(damaged);
        }
    }
    free(buffer);
    return 0;
}
#endif
