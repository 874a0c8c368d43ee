/* bzip2's checksum: a CRC of 32 bits, the highest bit first. The caller owns the tables. */
#ifndef STREAMSAVE_BZIP2_CRC_H
#define STREAMSAVE_BZIP2_CRC_H

#include <stddef.h>
#include <stdint.h>

#define SS_BZIP2_POLYNOMIAL 0x04c11db7u

static inline uint32_t ss_load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void ss_bzip2_crc_init(uint32_t tables[8][256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = crc << 1 ^ (crc >> 31 ? SS_BZIP2_POLYNOMIAL : 0);
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (uint32_t table = 1; table < 8; table++)
            tables[table][i] = tables[table - 1][i] << 8 ^ tables[0][tables[table - 1][i] >> 24];
}

/* Eight bytes a step. */
static inline uint32_t ss_bzip2_crc(uint32_t tables[8][256], const uint8_t *data, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (; n >= 8; data += 8, n -= 8) {
        uint32_t high = crc ^ ss_load_be32(data), low = ss_load_be32(data + 4);
        crc = tables[7][high >> 24] ^ tables[6][high >> 16 & 255] ^ tables[5][high >> 8 & 255] ^ tables[4][high & 255];
        crc ^= tables[3][low >> 24] ^ tables[2][low >> 16 & 255] ^ tables[1][low >> 8 & 255] ^ tables[0][low & 255];
    }
    for (; n > 0; data++, n--)
        crc = crc << 8 ^ tables[0][crc >> 24 ^ *data];
    return ~crc;
}

#endif
