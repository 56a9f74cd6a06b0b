/*
 * crc32c.c - see internal.h: CRC32C by eight tables, about 1.5 GB/s.
 *
 * Layer: storage. Thread-safety: pure; the tables are made once.
 * Source: RFC 3720, appendix B.4 (polynomial 0x1EDC6F41, reflected 0x82F63B78).
 */
#include <pthread.h>

#include "vfs/storage/gcs/internal.h"

#define POLYNOMIAL UINT32_C(0x82F63B78)
#define TABLES     8u

static uint32_t tables[TABLES][256];

static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (POLYNOMIAL & (0u - (crc & 1)));
        tables[0][i] = crc;
    }
    for (unsigned t = 1; t < TABLES; t++)
        for (unsigned i = 0; i < 256; i++)
            tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xff];
}

static uint32_t get_le32(const uint8_t *p)
{
    return p[0] | ((uint32_t)p[1] << 8) | ((uint32_t)p[2] << 16) | ((uint32_t)p[3] << 24);
}

uint32_t lj_gcs_crc32c(uint32_t crc, const void *data, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_tables);
    const uint8_t *p = data;
    crc = ~crc;
    for (; len >= 8; len -= 8, p += 8) {
        uint32_t low = crc ^ get_le32(p);
        uint32_t high = get_le32(p + 4);
        crc = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^
              tables[4][low >> 24] ^ tables[3][high & 0xff] ^ tables[2][(high >> 8) & 0xff] ^
              tables[1][(high >> 16) & 0xff] ^ tables[0][high >> 24];
    }
    for (; len > 0; len--, p++)
        crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 0xff];
    return ~crc;
}
