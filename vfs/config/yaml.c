/*
 * yaml.c - the `replication:` block of a litejoin.yaml.
 *
 * The file belongs to the engine; only this block is ours. So the text is read as a stream of events and everything
 * else is stepped over without a look at it: tags, anchors, aliases, complex keys, further documents. What is not
 * well-formed YAML is an error wherever it stands. No recursion: nesting is counted.
 *
 * Layer: config. Thread-safety: as config.h. Follows YAML 1.1 as libyaml reads it.
 */
#include "vfs/config/config.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/config/options.h"

#define BLOCK_NAME "replication"

typedef struct {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; zeroed when there is none */
    const char *path;
    lj_config *config;
    bool have_block;
    bool seen[LJ_CONFIG_OPTION_MAX];
    lj_error *err;
} reader;

static void reader_end(reader *r)
{
    yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
}

static unsigned long line_of(const reader *r)
{
    return (unsigned long)r->event.start_mark.line + 1;
}

/* Replaces the current event by the next one. */
static lj_code next(reader *r)
{
    yaml_event_delete(&r->event);
    memset(&r->event, 0, sizeof(r->event));
    if (yaml_parser_parse(&r->parser, &r->event) != 0)
        return LJ_OK;
    memset(&r->event, 0, sizeof(r->event));
    if (r->parser.error == YAML_MEMORY_ERROR)
        return lj_error_nomem(r->err);
    const char *problem = r->parser.problem == NULL ? "unreadable" : r->parser.problem;
    if (r->parser.error == YAML_READER_ERROR)
        lj_error_set(r->err, LJ_INVALID, "%.200s: byte %zu: not well-formed YAML: %s", r->path,
                     r->parser.problem_offset, problem);
    else
        lj_error_set(r->err, LJ_INVALID, "%.200s:%lu: not well-formed YAML: %s", r->path,
                     (unsigned long)r->parser.problem_mark.line + 1, problem);
    lj_error_hint(r->err, "correct the file; YAML wants UTF-8, spaces instead of tabs, and quotes "
                          "around special characters");
    return LJ_INVALID;
}

/* Steps over the node that begins with the current event; its last event is the current one then. */
static lj_code skip_node(reader *r)
{
    for (size_t depth = 0;;) {
        yaml_event_type_t type = r->event.type;
        if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
            depth++;
        else if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT)
            depth--;
        if (depth == 0)
            return LJ_OK;
        LJ_TRY(next(r));
    }
}

/* True when the current event is a scalar without a NUL byte: then *ret_text is it, until the next event. */
static bool scalar_text(const reader *r, const char **ret_text)
{
    if (r->event.type != YAML_SCALAR_EVENT)
        return false;
    *ret_text = (const char *)r->event.data.scalar.value;
    return memchr(*ret_text, 0, r->event.data.scalar.length) == NULL;
}

static bool is_null(const reader *r)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    const char *text = NULL;
    if (!scalar_text(r, &text) || r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < LJ_ARRAY_LEN(words); i++) {
        if (strcmp(text, words[i]) == 0)
            return true;
    }
    return false;
}

/* Puts "file:line" in front of an error. */
static lj_code at_line(reader *r, unsigned long line)
{
    lj_error_context(r->err, "%.200s:%lu", r->path, line);
    return LJ_INVALID;
}

static const char *kind_of_value(const reader *r)
{
    switch (r->event.type) {
    case YAML_ALIAS_EVENT:
        return "an alias";
    case YAML_MAPPING_START_EVENT:
        return "a mapping";
    case YAML_SEQUENCE_START_EVENT:
        return "a list";
    default:
        return "no text";
    }
}

/* The current event is the value of `key`. */
static lj_code take_value(reader *r, const char *key, unsigned long line)
{
    char shown[LJ_OPTION_SHOWN_MAX];
    lj_option_show_value("", key, shown);
    LJ_CLEANUP(lj_freep) char *full = lj_str_printf(BLOCK_NAME ".%s", shown);
    if (full == NULL)
        return lj_error_nomem(r->err);
    size_t index = 0;
    const lj_option *option = lj_option_find(key, &index);
    const char *value = "";
    bool is_text = scalar_text(r, &value);
    if (option == NULL) {
        lj_option_unknown(LJ_ORIGIN_FILE, full, key, is_text ? value : kind_of_value(r), r->err);
        return at_line(r, line);
    }
    if (r->seen[index]) {
        lj_error_set(r->err, LJ_INVALID, "%s is there twice; allowed: once", full);
        lj_error_hint(r->err, "remove one of the two lines");
        return at_line(r, line);
    }
    r->seen[index] = true;
    if (!is_text || is_null(r)) {
        lj_error_set(r->err, LJ_INVALID, "%s is %s; allowed: %s", full,
                     is_text ? "empty" : kind_of_value(r), option->info.allowed);
        lj_error_hint(r->err, "write one value behind the colon, or remove the line");
        return at_line(r, line);
    }
    lj_code code = lj_option_set(r->config, LJ_ORIGIN_FILE, option, full, value, r->err);
    if (code == LJ_INVALID)
        return at_line(r, line);
    return code;
}

/* The current event begins the value of `replication`. */
static lj_code take_block(reader *r)
{
    unsigned long line = line_of(r);
    if (r->have_block) {
        lj_error_set(r->err, LJ_INVALID, "the block " BLOCK_NAME ": is there twice; allowed: once");
        return at_line(r, line);
    }
    r->have_block = true;
    if (is_null(r))
        return LJ_OK;
    if (r->event.type != YAML_MAPPING_START_EVENT) {
        const char *text = NULL;
        char shown[LJ_OPTION_SHOWN_MAX];
        lj_option_show_value("", scalar_text(r, &text) ? text : kind_of_value(r), shown);
        lj_error_set(r->err, LJ_INVALID,
                     BLOCK_NAME
                     " = \"%s\" is no block; allowed: lines like 'replica_url: file:///path', "
                     "indented below it",
                     shown);
        return at_line(r, line);
    }
    for (;;) {
        LJ_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            return LJ_OK;
        line = line_of(r);
        const char *text = NULL;
        if (!scalar_text(r, &text)) {
            lj_error_set(r->err, LJ_INVALID,
                         "a key in " BLOCK_NAME ": is %s; allowed: the name of an option",
                         kind_of_value(r));
            return at_line(r, line);
        }
        LJ_CLEANUP(lj_freep) char *key = lj_str_dup(text);
        if (key == NULL)
            return lj_error_nomem(r->err);
        LJ_TRY(next(r));
        LJ_TRY(take_value(r, key, line));
    }
}

/* The current event begins the root mapping of a document. */
static lj_code take_root(reader *r)
{
    for (;;) {
        LJ_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            return LJ_OK;
        const char *key = NULL;
        bool ours = scalar_text(r, &key) && strcmp(key, BLOCK_NAME) == 0;
        LJ_TRY(skip_node(r));
        LJ_TRY(next(r));
        if (ours)
            LJ_TRY(take_block(r));
        else
            LJ_TRY(skip_node(r));
    }
}

static lj_code take_stream(reader *r)
{
    for (;;) {
        LJ_TRY(next(r));
        if (r->event.type == YAML_STREAM_END_EVENT)
            return LJ_OK;
        if (r->event.type != YAML_DOCUMENT_START_EVENT)
            continue;
        LJ_TRY(next(r));
        if (r->event.type == YAML_MAPPING_START_EVENT)
            LJ_TRY(take_root(r));
        else
            LJ_TRY(skip_node(r));
    }
}

/* *ret_block: was there a block? */
static lj_code parse(lj_config *config, const char *path, const char *text, size_t len,
                     bool *ret_block, lj_error *err)
{
    LJ_CLEANUP(lj_config_clear) lj_config work;
    memset(&work, 0, sizeof(work));
    LJ_TRY(lj_config_copy(config, &work, err));
    reader r;
    memset(&r, 0, sizeof(r));
    r.path = path;
    r.config = &work;
    r.err = err;
    if (yaml_parser_initialize(&r.parser) == 0)
        return lj_error_nomem(err);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    lj_code code = take_stream(&r);
    reader_end(&r);
    LJ_TRY(code);
    lj_config done = work;
    work = *config;
    *config = done;
    *ret_block = r.have_block;
    return LJ_OK;
}

lj_code lj_config_parse_yaml(lj_config *config, const char *path, const char *text, size_t len,
                             lj_error *err)
{
    bool ignored = false;
    return parse(config, path, text, len, &ignored, err);
}

lj_code lj_config_load_yaml(lj_config *config, const char *path, bool *ret_block, lj_error *err)
{
    LJ_CLEANUP(lj_freep) char *text = NULL;
    size_t len = 0;
    if (strstr(path, "://") != NULL) { /* a replica's URL, and not shown: it may hold a password */
        lj_error_set(err, LJ_INVALID, "the name of the configuration file is a URL");
        return lj_error_hint(err, "name a file in LITEJOIN_CONFIG; a URL goes into "
                                  "LITEJOIN_REPLICA_URL");
    }
    lj_code code = lj_io_read_file(path, LJ_CONFIG_FILE_MAX, &text, &len, err);
    if (code == LJ_NOTFOUND)
        lj_error_hint(err, "create the file, or name another one in LITEJOIN_CONFIG");
    LJ_TRY(code);
    return parse(config, path, text, len, ret_block, err);
}
