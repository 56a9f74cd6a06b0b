/*
 * walsum.c - the WAL's cumulative checksum, for the tests' own reader (wal.py builds and loads it; without a compiler it
 * uses the same loop in Python). Shares no code with the product, on purpose.
 */
#include <stddef.h>
#include <stdint.h>

void walsum(const uint8_t *data, size_t size, int little, uint32_t *sums);

/* Adds `size` bytes (a multiple of 8) to the two sums; little: words are little-endian, else big-endian. */
void walsum(const uint8_t *data, size_t size, int little, uint32_t *sums)
{
    uint32_t s0 = sums[0], s1 = sums[1];
    for (const uint8_t *p = data; p + 8 <= data + size; p += 8) {
        uint32_t a, b;
        if (little) {
            a = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
            b = p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
        } else {
            a = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
            b = (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
        }
        s0 += a + s1;
        s1 += b + s0;
    }
    sums[0] = s0;
    sums[1] = s1;
}
