/*
 * fuzz_object.c - an object of a replica: its label and LZ4 frame. Taken in one piece or in many it comes to the same; what came out
 * of it, compressed again with the same label, comes out of that too.
 */
#include "test/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/base/buf.h"
#include "vfs/base/stream.h"
#include "vfs/codec/lz4.h"
#include "vfs/replica/label.h"

#define CONTENT_MAX ((size_t)64 << 20)

typedef struct {
    lj_code code;
    lj_buf content;
    uint8_t label[LJ_LZ4_LABEL_MAX];
    size_t label_len;
    bool trailing;
} taken;

static void take(const uint8_t *data, size_t size, size_t piece, taken *ret)
{
    lj_error err = LJ_ERROR_INIT;
    *ret = (taken){.content = LJ_BUF_INIT(CONTENT_MAX)};
    lj_sink plain = lj_sink_buf(&ret->content);
    lj_lz4_decoder *decoder = NULL;
    lj_sink sink;
    ret->code = lj_lz4_decoder_new(&plain, &decoder, &sink, &err);
    if (ret->code != LJ_OK)
        return;
    for (size_t at = 0; at < size && ret->code == LJ_OK; at += piece)
        ret->code = sink.write(sink.ctx, data + at, LJ_MIN(piece, size - at), &err);
    if (ret->code == LJ_OK)
        ret->code = lj_lz4_decoder_finish(decoder, &err);
    FUZZ_CHECK(ret->code == LJ_OK || err.message[0] != 0);
    const uint8_t *label = lj_lz4_decoder_label(decoder, &ret->label_len);
    FUZZ_CHECK(ret->label_len <= LJ_LZ4_LABEL_MAX);
    memcpy(ret->label, label, ret->label_len);
    ret->trailing = lj_lz4_decoder_trailing(decoder);
    lj_lz4_decoder_free(decoder);
}

static void check_label(const taken *t)
{
    lj_label label;
    uint8_t again[LJ_LABEL_BYTES];
    char key[LJ_NAME_MAX];
    if (!lj_label_read(t->label, t->label_len, &label))
        return;
    lj_label_key(&label, key);
    bool fits = lj_label_fits(&label, key);
    FUZZ_CHECK(fits == (label.name.position.generation[0] != 0 &&
                        label.name.position.index <= LJ_INDEX_MAX &&
                        (label.name.kind == LJ_NAME_WAL || label.name.position.offset == 0)));
    if (!fits)
        return;
    lj_label_write(&label, again);
    FUZZ_CHECK(memcmp(again, t->label, sizeof(again)) == 0);
}

static void check_again(const taken *t)
{
    lj_error err = LJ_ERROR_INIT;
    lj_memory_source state;
    lj_source plain = lj_source_memory(&state, t->content.data, t->content.len);
    lj_lz4_encoder *encoder = NULL;
    lj_source packed;
    lj_buf out = LJ_BUF_INIT(2 * CONTENT_MAX);
    lj_sink sink = lj_sink_buf(&out);
    uint64_t n = 0;
    if (lj_lz4_encoder_new(&plain, &encoder, &packed, &err) != LJ_OK)
        return;
    if (t->label_len > 0)
        lj_lz4_encoder_label(encoder, t->label, t->label_len);
    FUZZ_CHECK(lj_stream_copy(&packed, &sink, &n, &err) == LJ_OK);
    lj_lz4_encoder_free(encoder);
    taken back;
    take(out.data, out.len, out.len, &back);
    FUZZ_CHECK(back.code == LJ_OK && !back.trailing && back.label_len == t->label_len);
    FUZZ_CHECK(memcmp(back.label, t->label, t->label_len) == 0);
    FUZZ_CHECK(back.content.len == t->content.len &&
               (back.content.len == 0 ||
                memcmp(back.content.data, t->content.data, back.content.len) == 0));
    lj_buf_free(&back.content);
    lj_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = 1 + data[0] % 37u;
    taken whole;
    taken pieces;
    take(data + 1, size - 1, size, &whole);
    take(data + 1, size - 1, piece, &pieces);
    FUZZ_CHECK(whole.code == pieces.code);
    if (whole.code == LJ_OK) {
        FUZZ_CHECK(whole.trailing == pieces.trailing && whole.label_len == pieces.label_len);
        FUZZ_CHECK(memcmp(whole.label, pieces.label, whole.label_len) == 0);
        FUZZ_CHECK(whole.content.len == pieces.content.len &&
                   (whole.content.len == 0 ||
                    memcmp(whole.content.data, pieces.content.data, whole.content.len) == 0));
        check_label(&whole);
        check_again(&whole);
    }
    lj_buf_free(&whole.content);
    lj_buf_free(&pieces.content);
    return 0;
}
