/* Decompresses the streams of a file, each preceded by its size and by the room for what it holds, in memory of exactly these
 * sizes, and writes the results: a size, or what is wrong as a negative number, and the bytes. bunzip2_driver FILE
 */
#include "bzip2_decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    ss_bzip2_decoder *decoder = malloc(sizeof *decoder);
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    uint32_t sizes[2];
    if (!file || !decoder)
        return 2;
    memset(decoder, 0xa5, sizeof *decoder); /* nothing may rely on zeros */
    ss_bzip2_decoder_init(decoder);
    while (fread(sizes, sizeof *sizes, 2, file) == 2) {
        uint8_t *in = malloc(sizes[0] ? sizes[0] : 1), *out = malloc(sizes[1] ? sizes[1] : 1);
        if (!in || !out || fread(in, 1, sizes[0], file) != sizes[0])
            return 2;
        int64_t size = ss_bzip2_decode(decoder, in, sizes[0], out, sizes[1]);
        int32_t told = (int32_t)size;
        fwrite(&told, sizeof told, 1, stdout);
        if (size > 0)
            fwrite(out, 1, (size_t)size, stdout);
        free(in);
        free(out);
    }
    free(decoder);
    return fclose(file);
}
