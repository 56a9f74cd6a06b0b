/*
 * litestream_config.c - see litestream_config.h. Reads the YAML tree along tables of keys; the rules between keys and
 * the texts around a file (environment, paths, URLs) are in litestream_rules.c.
 *
 * Layer: tools. Thread-safety: one thread.
 */
#include "tools/litestream_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "tools/litestream_rules.h"
#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/log.h"
#include "vfs/base/secret.h"
#include "vfs/base/str.h"

typedef enum {
    KEY_TEXT,
    KEY_BOOL,
    KEY_MAYBE_BOOL, /* a bool behind a bool that says whether it was given */
    KEY_DURATION,
    KEY_NUMBER,
    KEY_TEXTS,
    KEY_SETTING, /* kept with its name in a litestream_settings */
    KEY_BLOCK    /* a mapping with its own table, read into the same object */
} key_kind;

typedef struct key_def {
    const char *name;
    key_kind kind;
    size_t offset;
    const struct key_def *block; /* KEY_BLOCK */
} key_def;

/* Blocks that one takes over by "<<", one in the other and in the whole file: where a circle ends. */
#define MERGE_DEPTH_MAX 16u
#define MERGES_MAX      1000000u

#define KEY_SHOWN_MAX 64u

typedef struct {
    yaml_document_t *document;
    const char *name; /* of the file */
    unsigned merge_depth;
    unsigned merges;
    lj_error *err;
} reader;

/* The list that stands in a block beside its keys. */
typedef struct {
    const char *name;
    const yaml_node_t *node; /* NULL: the key is absent */
} list_key;

/* What the keys of a mapping are read into. */
typedef struct {
    const char *where; /* for messages */
    const key_def *defs;
    void *object;
    list_key *list; /* may be NULL */
} block;

#define R(member) offsetof(litestream_replica, member)
static const key_def age_keys[] = {
    {"identities", KEY_TEXTS, R(age_identities), NULL},
    {"recipients", KEY_TEXTS, R(age_recipients), NULL},
    {0},
};
static const key_def replica_keys[] = {
    {"type", KEY_TEXT, R(type), NULL},
    {"name", KEY_TEXT, R(name), NULL},
    {"path", KEY_TEXT, R(path), NULL},
    {"url", KEY_TEXT, R(url), NULL},
    {"retention", KEY_DURATION, R(retention_ns), NULL},
    {"retention-check-interval", KEY_DURATION, R(retention_check_interval_ns), NULL},
    {"sync-interval", KEY_DURATION, R(sync_interval_ns), NULL},
    {"snapshot-interval", KEY_DURATION, R(snapshot_interval_ns), NULL},
    {"validation-interval", KEY_DURATION, R(validation_interval_ns), NULL},
    {"access-key-id", KEY_TEXT, R(access_key_id), NULL},
    {"secret-access-key", KEY_TEXT, R(secret_access_key), NULL},
    {"region", KEY_TEXT, R(region), NULL},
    {"bucket", KEY_TEXT, R(bucket), NULL},
    {"endpoint", KEY_TEXT, R(endpoint), NULL},
    {"force-path-style", KEY_MAYBE_BOOL, R(has_force_path_style), NULL},
    {"skip-verify", KEY_BOOL, R(skip_verify), NULL},
    {"account-name", KEY_TEXT, R(account_name), NULL},
    {"account-key", KEY_TEXT, R(account_key), NULL},
    {"host", KEY_TEXT, R(host), NULL},
    {"user", KEY_TEXT, R(user), NULL},
    {"password", KEY_TEXT, R(password), NULL},
    {"key-path", KEY_TEXT, R(key_path), NULL},
    {"age", KEY_BLOCK, 0, age_keys},
    /* not in v0.3.13 */
    {"session-token", KEY_SETTING, R(settings), NULL},
    {"profile", KEY_SETTING, R(settings), NULL},
    {"storage-class", KEY_SETTING, R(settings), NULL},
    {"sse", KEY_SETTING, R(settings), NULL},
    {"sse-kms-key-id", KEY_SETTING, R(settings), NULL},
    {"sse-customer-key", KEY_SETTING, R(settings), NULL},
    {"conditional", KEY_SETTING, R(settings), NULL},
    {"credentials-path", KEY_SETTING, R(settings), NULL},
    {"user-project", KEY_SETTING, R(settings), NULL},
    {"sas-token", KEY_SETTING, R(settings), NULL},
    {"connection-string", KEY_SETTING, R(settings), NULL},
    {"known-hosts-path", KEY_SETTING, R(settings), NULL},
    {"host-key", KEY_SETTING, R(settings), NULL},
    {"strict-host-key", KEY_SETTING, R(settings), NULL},
    {"key-passphrase", KEY_SETTING, R(settings), NULL},
    {"max-connections", KEY_SETTING, R(settings), NULL},
    {0},
};
#undef R

_Static_assert(LJ_ARRAY_LEN(replica_keys) <= 64, "read_block has a bit for each");

#define D(member) offsetof(litestream_db, member)
static const key_def db_keys[] = {
    {"path", KEY_TEXT, D(path), NULL},
    {"meta-path", KEY_TEXT, D(meta_path), NULL},
    {"monitor-interval", KEY_DURATION, D(monitor_interval_ns), NULL},
    {"checkpoint-interval", KEY_DURATION, D(checkpoint_interval_ns), NULL},
    {"min-checkpoint-page-count", KEY_NUMBER, D(min_checkpoint_pages), NULL},
    {"max-checkpoint-page-count", KEY_NUMBER, D(max_checkpoint_pages), NULL},
    {0},
};
#undef D

#define C(member) offsetof(litestream_config, member)
static const key_def logging_keys[] = {
    {"level", KEY_TEXT, C(log_level), NULL},
    {"type", KEY_TEXT, C(log_type), NULL},
    {"stderr", KEY_BOOL, C(log_stderr), NULL},
    {0},
};
static const key_def config_keys[] = {
    {"addr", KEY_TEXT, C(addr), NULL},
    {"exec", KEY_TEXT, C(exec), NULL},
    {"access-key-id", KEY_TEXT, C(access_key_id), NULL},
    {"secret-access-key", KEY_TEXT, C(secret_access_key), NULL},
    {"logging", KEY_BLOCK, 0, logging_keys},
    {0},
};
#undef C

static lj_code bad(const reader *r, const yaml_node_t *node, const char *key, const char *wanted)
{
    return lj_error_set(r->err, LJ_INVALID, "%s: line %zu: %s must be %s", r->name,
                        node->start_mark.line + 1, key, wanted);
}

static bool is_null(const yaml_node_t *node)
{
    const char *text = (const char *)node->data.scalar.value;
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text[0] == 0 || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0);
}

static const char *scalar(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

/* The words of YAML 1.1. */
static bool parse_bool(const char *text, bool *ret)
{
    static const char *const yes[] = {"true", "yes", "on", "y"};
    static const char *const no[] = {"false", "no", "off", "n"};
    for (size_t i = 0; i < LJ_ARRAY_LEN(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool parse_number(const char *text, int64_t *ret)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 0);
    if (text[0] == 0 || *end != 0 || errno != 0)
        return false;
    *ret = value;
    return true;
}

/* Go's form, with an optional minus sign (v0.3.13: not positive means off); a bare number is nanoseconds. */
static bool parse_duration(const char *text, int64_t *ret)
{
    if (parse_number(text, ret))
        return true;
    bool negative = text[0] == '-';
    int64_t value = 0;
    if (lj_clock_parse_duration(text + (negative ? 1 : 0), &value, NULL) != LJ_OK)
        return false;
    *ret = negative ? -value : value;
    return true;
}

static lj_code set_text(const reader *r, char **target, const char *text)
{
    char *copy = lj_str_dup(text);
    if (copy == NULL)
        return lj_error_nomem(r->err);
    free(*target);
    *target = copy;
    return LJ_OK;
}

/* Any text of the file may be a secret. */
static void free_texts(litestream_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        lj_wipe_freep(&texts->items[i]);
    free(texts->items);
    *texts = (litestream_texts){.items = NULL};
}

static lj_code set_texts(const reader *r, const yaml_node_t *node, const char *key,
                         litestream_texts *target)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return bad(r, node, key, "a list");
    free_texts(target); /* the key may be there twice */
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    target->items = calloc(count + 1, sizeof(*target->items));
    if (target->items == NULL)
        return lj_error_nomem(r->err);
    for (size_t i = 0; i < count; i++) {
        yaml_node_t *item = yaml_document_get_node(r->document, node->data.sequence.items.start[i]);
        if (scalar(item) == NULL)
            return bad(r, item, key, "a list of texts");
        LJ_TRY(set_text(r, &target->items[i], scalar(item)));
        target->count++;
    }
    return LJ_OK;
}

static lj_code append_text(const reader *r, litestream_texts *texts, const char *text)
{
    char **longer = realloc(texts->items, (texts->count + 1) * sizeof(*longer));
    if (longer == NULL)
        return lj_error_nomem(r->err);
    texts->items = longer;
    longer[texts->count] = NULL;
    LJ_TRY(set_text(r, &longer[texts->count], text));
    texts->count++;
    return LJ_OK;
}

static lj_code add_setting(const reader *r, litestream_settings *settings, const char *name,
                           const char *value)
{
    LJ_TRY(append_text(r, &settings->names, name));
    return append_text(r, &settings->values, value);
}

static lj_code read_block(reader *r, const yaml_node_t *node, const block *b);

static lj_code set_key(reader *r, const yaml_node_t *node, const key_def *def, void *object)
{
    void *target = (char *)object + def->offset;
    if (is_null(node)) {
        if (def->kind == KEY_TEXT)
            lj_wipe_freep(target); /* it may be there from a block that was taken over */
        return LJ_OK;
    }
    if (def->kind == KEY_BLOCK) {
        block inner = {.where = def->name, .defs = def->block, .object = object};
        return read_block(r, node, &inner);
    }
    if (def->kind == KEY_TEXTS)
        return set_texts(r, node, def->name, target);
    const char *text = scalar(node);
    if (text == NULL)
        return bad(r, node, def->name, "a single value");
    switch (def->kind) {
    case KEY_TEXT:
        if (text[0] != 0)
            return set_text(r, target, text);
        lj_wipe_freep(target); /* as in Go: "" is what an absent key has */
        return LJ_OK;
    case KEY_SETTING:
        return add_setting(r, target, def->name, text);
    case KEY_MAYBE_BOOL:
        *(bool *)target = true;
        target = (bool *)target + 1;
        return parse_bool(text, target) ? LJ_OK : bad(r, node, def->name, "true or false");
    case KEY_BOOL:
        return parse_bool(text, target) ? LJ_OK : bad(r, node, def->name, "true or false");
    case KEY_DURATION:
        return parse_duration(text, target)
                   ? LJ_OK
                   : bad(r, node, def->name, "a duration like 1h30m, 10s or 500ms");
    case KEY_NUMBER:
        return parse_number(text, target) ? LJ_OK : bad(r, node, def->name, "a number");
    case KEY_TEXTS:
    case KEY_BLOCK:
        break;
    }
    return LJ_OK;
}

/* A plain "<<": the block takes over the keys of another one, which was named with '&'. */
static bool is_merge(const yaml_node_t *key)
{
    return scalar(key) != NULL && strcmp(scalar(key), "<<") == 0 &&
           key->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* The keys of what a "<<" names: one block, or a list of which the first has the last word. */
static lj_code merge(reader *r, const yaml_node_t *node, const block *b)
{
    if (r->merge_depth == MERGE_DEPTH_MAX || ++r->merges > MERGES_MAX)
        return bad(r, node, "<<", "a block that does not contain itself");
    lj_code code = LJ_OK;
    r->merge_depth++;
    if (node->type == YAML_SEQUENCE_NODE) {
        const yaml_node_item_t *items = node->data.sequence.items.start;
        size_t count = (size_t)(node->data.sequence.items.top - items);
        for (size_t i = count; i > 0 && code == LJ_OK; i--)
            code = merge(r, yaml_document_get_node(r->document, items[i - 1]), b);
    } else if (node->type == YAML_MAPPING_NODE) {
        code = read_block(r, node, b);
    } else {
        code = bad(r, node, "<<", "a block of keys, or a list of them");
    }
    r->merge_depth--;
    return code;
}

/* The place of a key in b->defs, behind them that of the list; SIZE_MAX when it is neither. */
static size_t find_key(const block *b, const char *name)
{
    size_t i = 0;
    for (; b->defs[i].name != NULL; i++)
        if (strcmp(b->defs[i].name, name) == 0)
            return i;
    return b->list != NULL && strcmp(b->list->name, name) == 0 ? i : SIZE_MAX;
}

/* How much of a key is shown: with a ':' that no space follows its value is a part of it, and may be a secret. */
static int shown_length(const char *key)
{
    return (int)LJ_MIN(strcspn(key, ":"), (size_t)KEY_SHOWN_MAX);
}

/*
 * Reads a mapping. As in v0.3.13 what comes later wins, also over what a "<<" before it has brought. Keys that are not
 * known, or are there twice, are warned about.
 */
static lj_code read_block(reader *r, const yaml_node_t *node, const block *b)
{
    uint64_t seen = 0; /* one bit for each known key */
    if (node->type != YAML_MAPPING_NODE)
        return bad(r, node, b->where, "a block of keys");
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(r->document, pair->value);
        if (scalar(key) == NULL)
            return bad(r, key, b->where, "a block with plain keys");
        if (is_merge(key)) {
            LJ_TRY(merge(r, value, b));
            continue;
        }
        size_t at = find_key(b, scalar(key));
        if (at == SIZE_MAX) {
            lj_log(LJ_LOG_WARN, "%s: line %zu: unknown key \"%.*s\" in %s is ignored", r->name,
                   key->start_mark.line + 1, shown_length(scalar(key)), scalar(key), b->where);
            continue;
        }
        if ((seen & (UINT64_C(1) << at)) != 0)
            lj_log(LJ_LOG_WARN, "%s: line %zu: \"%s\" is there twice, and this one counts", r->name,
                   key->start_mark.line + 1, scalar(key));
        seen |= UINT64_C(1) << at;
        if (b->defs[at].name != NULL)
            LJ_TRY(set_key(r, value, &b->defs[at], b->object));
        else
            b->list->node = value;
    }
    return LJ_OK;
}

/* A list of mappings, as an array of `count` zeroed elements; NULL and 0 when the key is absent. */
static lj_code make_list(const reader *r, const list_key *list, size_t element_bytes,
                         void **ret_array, size_t *ret_count)
{
    const yaml_node_t *node = list->node;
    if (node == NULL || is_null(node))
        return LJ_OK;
    if (node->type != YAML_SEQUENCE_NODE)
        return bad(r, node, list->name, "a list");
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    *ret_array = calloc(count + 1, element_bytes);
    if (*ret_array == NULL)
        return lj_error_nomem(r->err);
    *ret_count = count;
    return LJ_OK;
}

static const yaml_node_t *item_at(const reader *r, const yaml_node_t *list, size_t i)
{
    return yaml_document_get_node(r->document, list->data.sequence.items.start[i]);
}

static lj_code read_db(reader *r, const yaml_node_t *node, litestream_db *db)
{
    list_key replicas = {.name = "replicas"};
    block all = {.where = "dbs", .defs = db_keys, .object = db, .list = &replicas};
    *db = (litestream_db){.monitor_interval_ns = LJ_NS_PER_S,
                          .checkpoint_interval_ns = 60 * LJ_NS_PER_S,
                          .min_checkpoint_pages = 1000,
                          .max_checkpoint_pages = 10000};
    LJ_TRY(read_block(r, node, &all));
    void *array = NULL;
    LJ_TRY(make_list(r, &replicas, sizeof(litestream_replica), &array, &db->replica_count));
    db->replicas = array;
    for (size_t i = 0; db->replicas != NULL && i < db->replica_count; i++) {
        block one = {.where = "replicas", .defs = replica_keys, .object = &db->replicas[i]};
        db->replicas[i] = (litestream_replica){.retention_ns = 24 * 3600 * LJ_NS_PER_S,
                                               .retention_check_interval_ns = 3600 * LJ_NS_PER_S,
                                               .sync_interval_ns = LJ_NS_PER_S};
        LJ_TRY(read_block(r, item_at(r, replicas.node, i), &one));
    }
    return LJ_OK;
}

static lj_code read_config(reader *r, litestream_config *config)
{
    list_key dbs = {.name = "dbs"};
    block all = {.where = "the file", .defs = config_keys, .object = config, .list = &dbs};
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    if (root == NULL || is_null(root))
        return LJ_OK;
    LJ_TRY(read_block(r, root, &all));
    void *array = NULL;
    LJ_TRY(make_list(r, &dbs, sizeof(litestream_db), &array, &config->db_count));
    config->dbs = array;
    for (size_t i = 0; i < config->db_count; i++)
        LJ_TRY(read_db(r, item_at(r, dbs.node, i), &config->dbs[i]));
    return LJ_OK;
}

/* As v0.3.13, which says nothing: of several documents in the file the first counts. */
static void warn_of_more(yaml_parser_t *parser, const char *name)
{
    yaml_document_t next;
    if (!yaml_parser_load(parser, &next))
        return;
    const yaml_node_t *root = yaml_document_get_root_node(&next);
    if (root != NULL)
        lj_log(LJ_LOG_WARN, "%s: line %zu: what stands behind \"---\" is ignored", name,
               root->start_mark.line + 1);
    yaml_document_delete(&next);
}

lj_code litestream_config_parse(const char *text, const char *name, litestream_config **ret_config,
                                lj_error *err)
{
    yaml_parser_t parser;
    yaml_document_t document;
    litestream_config *config = calloc(1, sizeof(*config));
    if (config == NULL || !yaml_parser_initialize(&parser)) {
        free(config);
        return lj_error_nomem(err);
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
    lj_code code = LJ_OK;
    if (!yaml_parser_load(&parser, &document)) {
        code = lj_error_set(err, LJ_INVALID, "%s: line %zu: not YAML: %s", name,
                            parser.problem_mark.line + 1,
                            parser.problem != NULL ? parser.problem : "cannot be read");
    } else {
        reader r = {.document = &document, .name = name, .err = err};
        code = read_config(&r, config);
        yaml_document_delete(&document);
        warn_of_more(&parser, name);
    }
    yaml_parser_delete(&parser);
    if (code == LJ_OK)
        code = litestream_rules_apply(config, name, err);
    if (code != LJ_OK) {
        litestream_config_free(config);
        return code;
    }
    *ret_config = config;
    return LJ_OK;
}

lj_code litestream_config_load(const char *path, bool expand_env, litestream_config **ret_config,
                               lj_error *err)
{
    LJ_CLEANUP(lj_wipe_freep) char *text = NULL;
    LJ_CLEANUP(lj_wipe_freep) char *expanded = NULL;
    size_t len = 0;
    lj_code code = lj_io_read_file(path, LITESTREAM_CONFIG_BYTES_MAX, &text, &len, err);
    if (code == LJ_NOTFOUND) {
        lj_error_set(err, LJ_NOTFOUND, "config file not found: %s", path);
        return lj_error_hint(err, "name one with -config or LITESTREAM_CONFIG, or give a replica "
                                  "URL instead of a database path");
    }
    LJ_TRY(code);
    if (strlen(text) != len) {
        lj_error_set(err, LJ_INVALID, "%s: byte %zu: not YAML: a NUL byte", path, strlen(text));
        return lj_error_hint(err, "write the file anew, in UTF-8");
    }
    expanded = expand_env ? litestream_expand_env(text) : lj_str_dup(text);
    if (expanded == NULL)
        return lj_error_nomem(err);
    return litestream_config_parse(expanded, path, ret_config, err);
}

static void free_keys(const key_def *defs, void *object)
{
    for (; defs->name != NULL; defs++) {
        void *target = (char *)object + defs->offset;
        if (defs->kind == KEY_BLOCK) {
            free_keys(defs->block, object);
        } else if (defs->kind == KEY_TEXT) {
            lj_wipe_freep(target);
        } else if (defs->kind == KEY_TEXTS) {
            free_texts(target);
        } else if (defs->kind == KEY_SETTING) { /* one object for all of them */
            free_texts(&((litestream_settings *)target)->names);
            free_texts(&((litestream_settings *)target)->values);
        }
    }
}

void litestream_config_free(litestream_config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->db_count; i++) {
        for (size_t j = 0; j < config->dbs[i].replica_count; j++)
            free_keys(replica_keys, &config->dbs[i].replicas[j]);
        free(config->dbs[i].replicas);
        free_keys(db_keys, &config->dbs[i]);
    }
    free(config->dbs);
    free_keys(config_keys, config);
    free(config);
}
