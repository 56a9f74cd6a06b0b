/*
 * label.c - see label.h.
 */
#include "vfs/replica/label.h"

#include <string.h>

static const char MAGIC[8] = "LJOBJ1";

#define AT_GENERATION 8u
#define AT_KIND       24u
#define AT_INDEX      28u
#define AT_OFFSET     32u
#define AT_SIZE       40u
#define AT_NEEDS      48u
#define AT_SALT       56u
#define KIND_SNAPSHOT 0u
#define KIND_SEGMENT  1u

static void put_be64(uint8_t *p, uint64_t v)
{
    lj_put_be32(p, (uint32_t)(v >> 32));
    lj_put_be32(p + 4, (uint32_t)v);
}

static uint64_t get_be64(const uint8_t *p)
{
    return ((uint64_t)lj_get_be32(p) << 32) | lj_get_be32(p + 4);
}

void lj_label_write(const lj_label *label, uint8_t out[LJ_LABEL_BYTES])
{
    const lj_position *at = &label->name.position;
    memcpy(out, MAGIC, sizeof(MAGIC));
    memcpy(out + AT_GENERATION, at->generation, LJ_GENERATION_MAX - 1);
    lj_put_be32(out + AT_KIND, label->name.kind == LJ_NAME_SNAPSHOT ? KIND_SNAPSHOT : KIND_SEGMENT);
    lj_put_be32(out + AT_INDEX, at->index);
    put_be64(out + AT_OFFSET, at->offset);
    put_be64(out + AT_SIZE, label->size_bytes);
    put_be64(out + AT_NEEDS, label->needs);
    lj_put_be32(out + AT_SALT, label->salt.salt1);
    lj_put_be32(out + AT_SALT + 4, label->salt.salt2);
}

bool lj_label_read(const uint8_t *data, size_t len, lj_label *ret_label)
{
    if (len != LJ_LABEL_BYTES || memcmp(data, MAGIC, sizeof(MAGIC)) != 0)
        return false;
    uint32_t kind = lj_get_be32(data + AT_KIND);
    lj_label label = {
        .name.kind = kind == KIND_SNAPSHOT ? LJ_NAME_SNAPSHOT : LJ_NAME_WAL,
        .size_bytes = get_be64(data + AT_SIZE),
        .needs = get_be64(data + AT_NEEDS),
        .salt = {.salt1 = lj_get_be32(data + AT_SALT), .salt2 = lj_get_be32(data + AT_SALT + 4)}};
    lj_position *at = &label.name.position;
    memcpy(at->generation, data + AT_GENERATION, LJ_GENERATION_MAX - 1);
    at->index = lj_get_be32(data + AT_INDEX);
    at->offset = get_be64(data + AT_OFFSET);
    /* damaged ones stay labels: they fit no name */
    if (kind > KIND_SEGMENT || !lj_generation_ok(at->generation))
        at->generation[0] = 0;
    *ret_label = label;
    return true;
}

bool lj_label_fits(const lj_label *label, const char *key)
{
    lj_name name;
    lj_name_parse(key, &name);
    return name.kind == label->name.kind && lj_position_eq(&name.position, &label->name.position);
}

void lj_label_key(const lj_label *label, char out[LJ_NAME_MAX])
{
    const lj_position *at = &label->name.position;
    if (label->name.kind == LJ_NAME_SNAPSHOT)
        lj_name_snapshot(at->generation, at->index, out);
    else
        lj_name_wal(at, out);
}
