/* Runs the bzip2 compressor over a file of texts, each preceded by its size, and writes the results in the same shape.
 *
 *     bzip2_driver LEVEL FILE    streams
 *     bzip2_driver 0 FILE        the row of the text itself, and the last column of its sorted rotations
 *
 * All memory is exactly as large as the headers say, so that a sanitizer sees a step over its edge.
 */
#include "bzip2_encode.h"

#include <stdio.h>
#include <stdlib.h>

static void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory)
        exit(2);
    memset(memory, 0xa5, size); /* nothing may rely on zeros */
    return memory;
}

static void put(uint32_t size, const uint8_t *data)
{
    fwrite(&size, sizeof size, 1, stdout);
    fwrite(data, 1, size, stdout);
}

static void sort(const uint8_t *text, uint32_t n)
{
    uint8_t *room = allocate(SS_BZIP2_TEXT_BEFORE + SS_BZIP2_TEXT_SIZE((size_t)n)), *last = allocate(sizeof n + n);
    uint32_t *work = allocate(SS_BZIP2_WORK_SIZE((size_t)n) * sizeof *work);
    memcpy(room + SS_BZIP2_TEXT_BEFORE, text, n);
    uint32_t row = ss_bzip2_sort(room + SS_BZIP2_TEXT_BEFORE, n, last + sizeof n, work);
    memcpy(last, &row, sizeof row);
    put(sizeof row + n, last);
    free(work);
    free(last);
    free(room);
}

static void encode(ss_bzip2_encoder *encoder, uint32_t level, const uint8_t *text, uint32_t n)
{
    size_t room = n + n / 100 + 600;
    uint8_t *out = allocate(room);
    size_t size = ss_bzip2_encode(encoder, level, text, n, out, room);
    put((uint32_t)size, out);
    for (size_t less = 0; n < 10000 && less < size; less += 1 + size / 8) { /* too little room is kept to */
        uint8_t *small = allocate(less);
        if (ss_bzip2_encode(encoder, level, text, n, small, less))
            exit(3);
        free(small);
    }
    free(out);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    uint32_t level = (uint32_t)atoi(argv[1]), n;
    FILE *file = fopen(argv[2], "rb");
    ss_bzip2_encoder *encoder = allocate(sizeof *encoder);
    ss_bzip2_init(encoder);
    while (file && fread(&n, sizeof n, 1, file) == 1) {
        uint8_t *text = allocate(n);
        if (fread(text, 1, n, file) != n)
            return 2;
        if (level)
            encode(encoder, level, text, n);
        else
            sort(text, n);
        free(text);
    }
    free(encoder);
    return file && fclose(file) == 0 ? 0 : 2;
}
