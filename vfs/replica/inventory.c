/*
 * inventory.c - see inventory.h. The listing is taken as it comes and sorted afterwards; arrays double when their
 * count reaches a power of two, so that no capacity has to be kept beside the count.
 *
 * Layer: replica. Thread-safety: one call, one thread.
 */
#include "vfs/replica/inventory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    lj_inventory *inventory;
    uint64_t objects;
    size_t last; /* generation of the previous object: listings come in runs */
} builder;

/* Room for one more element behind `count`; NULL when out of memory (the old array stays valid). */
static void *grown(void *array, size_t count, size_t element_bytes)
{
    if (count != 0 && (count & (count - 1)) != 0)
        return array;
    size_t capacity = count == 0 ? 1 : count * 2;
    if (capacity > SIZE_MAX / element_bytes)
        return NULL;
    return realloc(array, capacity * element_bytes);
}

static lj_generation_info *find_or_add(builder *b, const char *generation, lj_error *err)
{
    lj_inventory *inventory = b->inventory;
    if (b->last < inventory->generation_count &&
        strcmp(inventory->generations[b->last].generation, generation) == 0)
        return &inventory->generations[b->last];
    for (size_t i = 0; i < inventory->generation_count; i++) {
        if (strcmp(inventory->generations[i].generation, generation) == 0) {
            b->last = i;
            return &inventory->generations[i];
        }
    }
    lj_generation_info *array =
        grown(inventory->generations, inventory->generation_count, sizeof(*array));
    if (array == NULL) {
        (void)lj_error_nomem(err);
        return NULL;
    }
    inventory->generations = array;
    b->last = inventory->generation_count++;
    lj_generation_info *added = &array[b->last];
    *added = (lj_generation_info){.created_ns = INT64_MAX, .updated_ns = INT64_MIN};
    memcpy(added->generation, generation, sizeof(added->generation));
    return added;
}

static lj_code add_snapshot(lj_generation_info *generation, const lj_name *name,
                            const lj_storage_entry *entry, lj_error *err)
{
    lj_snapshot_info *array =
        grown(generation->snapshots, generation->snapshot_count, sizeof(*array));
    if (array == NULL)
        return lj_error_nomem(err);
    generation->snapshots = array;
    array[generation->snapshot_count++] = (lj_snapshot_info){
        .index = name->position.index,
        .size_bytes = entry->size_bytes,
        .created_ns = entry->created_ns,
    };
    return LJ_OK;
}

static lj_code add_segment(lj_generation_info *generation, const lj_name *name,
                           const lj_storage_entry *entry, lj_error *err)
{
    lj_segment_info *array = grown(generation->segments, generation->segment_count, sizeof(*array));
    if (array == NULL)
        return lj_error_nomem(err);
    generation->segments = array;
    const char *offset_text = strrchr(entry->key, '_') + 1;
    array[generation->segment_count++] = (lj_segment_info){
        .index = name->position.index,
        .offset_digits = (uint8_t)strcspn(offset_text, "."),
        .offset = name->position.offset,
        .size_bytes = entry->size_bytes,
        .created_ns = entry->created_ns,
    };
    return LJ_OK;
}

static lj_code take_entry(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    builder *b = ctx;
    lj_name name;
    lj_name_parse(entry->key, &name);
    if (name.kind == LJ_NAME_FOREIGN)
        return LJ_OK;
    if (++b->objects > LJ_INVENTORY_OBJECTS_MAX) {
        (void)lj_error_set(err, LJ_INVALID, "the replica lists more than %" PRIu64 " objects",
                           (uint64_t)LJ_INVENTORY_OBJECTS_MAX);
        return lj_error_hint(err, "name one generation, or let retention delete the old ones");
    }
    lj_generation_info *generation = find_or_add(b, name.position.generation, err);
    if (generation == NULL)
        return LJ_NOMEM;
    LJ_TRY(name.kind == LJ_NAME_SNAPSHOT ? add_snapshot(generation, &name, entry, err)
                                         : add_segment(generation, &name, entry, err));
    generation->created_ns = LJ_MIN(generation->created_ns, entry->created_ns);
    generation->updated_ns = LJ_MAX(generation->updated_ns, entry->created_ns);
    return LJ_OK;
}

#define THREE_WAY(a, b) (((a) > (b)) - ((a) < (b)))

static int compare_snapshots(const void *pa, const void *pb)
{
    const lj_snapshot_info *a = pa;
    const lj_snapshot_info *b = pb;
    int order = THREE_WAY(a->index, b->index);
    return order != 0 ? order : THREE_WAY(b->created_ns, a->created_ns);
}

/* Of one position the name with fewer digits comes first, and is the one that is kept. */
static int compare_segments(const void *pa, const void *pb)
{
    const lj_segment_info *a = pa;
    const lj_segment_info *b = pb;
    int order = THREE_WAY(a->index, b->index);
    if (order == 0)
        order = THREE_WAY(a->offset, b->offset);
    if (order == 0)
        order = THREE_WAY(a->offset_digits, b->offset_digits);
    return order != 0 ? order : THREE_WAY(b->created_ns, a->created_ns);
}

static int compare_generations(const void *pa, const void *pb)
{
    const lj_generation_info *a = pa;
    const lj_generation_info *b = pb;
    int order = THREE_WAY(a->updated_ns, b->updated_ns);
    if (order == 0)
        order = THREE_WAY(a->created_ns, b->created_ns);
    return order != 0 ? order : strcmp(a->generation, b->generation);
}

static void sort_generation(lj_generation_info *generation)
{
    size_t kept = 0;
    if (generation->snapshot_count > 0)
        qsort(generation->snapshots, generation->snapshot_count, sizeof(lj_snapshot_info),
              compare_snapshots);
    for (size_t i = 0; i < generation->snapshot_count; i++)
        if (kept == 0 || generation->snapshots[kept - 1].index != generation->snapshots[i].index)
            generation->snapshots[kept++] = generation->snapshots[i];
    generation->snapshot_count = kept;

    kept = 0;
    lj_segment_info *segments = generation->segments;
    if (generation->segment_count > 0)
        qsort(segments, generation->segment_count, sizeof(*segments), compare_segments);
    for (size_t i = 0; i < generation->segment_count; i++)
        if (kept == 0 || segments[kept - 1].index != segments[i].index ||
            segments[kept - 1].offset != segments[i].offset)
            segments[kept++] = segments[i];
    generation->segment_count = kept;
}

lj_code lj_inventory_read(lj_storage *storage, const char *generation, lj_inventory **ret_inventory,
                          lj_error *err)
{
    char prefix[LJ_NAME_MAX] = "generations/";
    if (generation != NULL) {
        if (!lj_generation_ok(generation)) {
            (void)lj_error_set(err, LJ_INVALID, "\"%s\" is not the name of a generation",
                               generation);
            return lj_error_hint(err, "a generation is 16 lowercase hex digits");
        }
        lj_name_generation_prefix(generation, prefix);
    }
    lj_inventory *inventory = calloc(1, sizeof(*inventory));
    if (inventory == NULL)
        return lj_error_nomem(err);
    builder b = {.inventory = inventory};
    lj_code code = lj_storage_list(storage, prefix, NULL, take_entry, &b, err);
    if (code != LJ_OK) {
        lj_inventory_free(inventory);
        return code;
    }
    for (size_t i = 0; i < inventory->generation_count; i++)
        sort_generation(&inventory->generations[i]);
    if (inventory->generation_count > 0)
        qsort(inventory->generations, inventory->generation_count, sizeof(lj_generation_info),
              compare_generations);
    *ret_inventory = inventory;
    return LJ_OK;
}

static lj_code refuse_ltx(void *ctx, const lj_storage_entry *entry, lj_error *err)
{
    (void)ctx;
    if (!lj_name_is_ltx(entry->key))
        return LJ_OK;
    (void)lj_error_set(
        err, LJ_UNSUPPORTED,
        "the replica was written by Litestream v0.5: it has %s, and no generation of "
        "the v0.3 layout",
        entry->key);
    return lj_error_hint(err,
                         "restore it with Litestream v0.5, or name another URL for a replica of "
                         "this program");
}

lj_code lj_inventory_refuse_ltx(lj_storage *storage, lj_error *err)
{
    /* the levels 0000 to 0009; of which of them there is something depends on the age of the replica */
    static const char *const prefixes[] = {"ltx/", "000"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(prefixes); i++)
        LJ_TRY(lj_storage_list(storage, prefixes[i], NULL, refuse_ltx, NULL, err));
    return LJ_OK;
}

void lj_inventory_free(lj_inventory *inventory)
{
    if (inventory == NULL)
        return;
    for (size_t i = 0; i < inventory->generation_count; i++) {
        free(inventory->generations[i].snapshots);
        free(inventory->generations[i].segments);
    }
    free(inventory->generations);
    free(inventory);
}

void lj_inventory_segment_key(const char *generation, const lj_segment_info *segment,
                              char out[LJ_NAME_MAX])
{
    snprintf(out, LJ_NAME_MAX, "generations/%s/wal/%08" PRIx32 "_%0*" PRIx64 ".wal.lz4", generation,
             segment->index, LJ_MAX((int)segment->offset_digits, 8), segment->offset);
}

const lj_generation_info *lj_inventory_find(const lj_inventory *inventory, const char *generation)
{
    for (size_t i = 0; i < inventory->generation_count; i++)
        if (strcmp(inventory->generations[i].generation, generation) == 0)
            return &inventory->generations[i];
    return NULL;
}
