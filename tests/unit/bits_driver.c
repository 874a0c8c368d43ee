/* Searches and copies the bits of a file, each time in memory of its own that ends where it has to, so that the address
 * sanitizer sees every byte touched beyond it. Prints what was found and the sums of what was copied: bits_driver FILE...
 */
#include "bits.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t NUMBERS[] = {UINT64_C(0x314159265359), UINT64_C(0x177245385090)};

static uint8_t *own(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        exit(1);
    memcpy(copy, data, n);
    return copy;
}

static void find_all(const uint8_t *data, size_t n)
{
    uint8_t *copy = own(data, n);
    int64_t found = -1;
    while ((found = ss_bits_find(copy, n, (uint64_t)(found + 1), NUMBERS, 2)) >= 0)
        printf("%" PRId64 " ", found);
    printf("\n");
    free(copy);
}

/* The 32 bits of Adler's sum over all copies of a length, from and to every bit of a byte. */
static void copy_all(const uint8_t *data, size_t length)
{
    uint32_t a = 1, b = 0;
    for (size_t from = 0; from < 8; from++)
        for (size_t to = 0; to < 8; to++) {
            uint8_t *source = own(data, (from + length + 7) / 8);
            size_t n = (to + length + 7) / 8;
            uint8_t *target = malloc(n ? n : 1);
            if (!target)
                exit(1);
            memset(target, 0xa5, n);
            ss_bits_copy(target, to, source, from, length);
            for (size_t i = 0; i < n; i++) {
                a = (a + target[i]) % 65521;
                b = (b + a) % 65521;
            }
            free(source);
            free(target);
        }
    printf("%" PRIu32 " ", b << 16 | a);
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return 1;
        size_t n = fread(data, 1, sizeof data, file);
        find_all(data, n);
        for (size_t length = 0; length < 200 && length + 16 < 8 * n; length++)
            copy_all(data, length);
        printf("\n");
        if (fclose(file) != 0)
            return 1;
    }
    return 0;
}
