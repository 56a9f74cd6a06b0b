/*
 * lz4.c - see lz4.h.
 *
 * Layer: codec. Thread-safety: one object, one thread.
 *
 * Encoder: liblz4 runs with autoFlush and is fed exactly one block at a time, so that it keeps no copy of the input
 * and the frame has full blocks; what it needs is one block of input, one of output and the 16 KiB hash table.
 * Decoder: liblz4 is fed at most up to the next block border and given room for a whole block, so that a block that
 * arrives in one piece is decoded from the caller's bytes straight into the buffer the sink is shown.
 * Invariant: after an error an object gives nothing but errors (an encoder until it is rewound).
 */
#include "vfs/codec/lz4.h"

#include <inttypes.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((size_t)1024)

#define MAGIC_FRAME       UINT32_C(0x184D2204)
#define MAGIC_LEGACY      UINT32_C(0x184C2102)
#define MAGIC_SKIP        UINT32_C(0x184D2A50) /* the low four bits are free */
#define SKIP_HEADER_BYTES 8u

static uint32_t get_le32(const uint8_t *p)
{
    return p[0] | ((uint32_t)p[1] << 8) | ((uint32_t)p[2] << 16) | ((uint32_t)p[3] << 24);
}

static void put_le32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

/* ---- encoder ---- */

typedef enum { ENCODER_START, ENCODER_BODY, ENCODER_END, ENCODER_FAILED } encoder_state;

struct lj_lz4_encoder {
    lj_source *source;
    LZ4F_cctx *cctx;
    LZ4F_preferences_t prefs;
    encoder_state state;
    size_t block_bytes;
    uint8_t label[SKIP_HEADER_BYTES + LJ_LZ4_LABEL_MAX]; /* as it is written */
    size_t label_len;
    uint8_t *in; /* block_bytes */
    uint8_t *out;
    size_t out_cap;
    size_t out_len;
    size_t out_pos; /* out[out_pos..out_len) is still to be handed out */
    uint64_t bytes_in;
    uint64_t bytes_out;
};

static lj_code lz4_failed(lj_error *err, const char *what, size_t result)
{
    const char *name = LZ4F_getErrorName(result);
    if (strcmp(name, "ERROR_allocation_failed") == 0)
        return lj_error_nomem(err);
    return lj_error_set(err, LJ_INTERNAL, "%s: liblz4 says %s", what, name);
}

/* The smallest block that holds the whole content, but no larger than the general one (see lz4.h). */
static void choose_block(lj_lz4_encoder *encoder)
{
    LZ4F_frameInfo_t *info = &encoder->prefs.frameInfo;
    int64_t size = encoder->source->size;
    if (size >= 0 && (uint64_t)size <= 64 * KIB) {
        info->blockSizeID = LZ4F_max64KB;
        encoder->block_bytes = 64 * KIB;
    } else if (size >= 0 && (uint64_t)size <= 256 * KIB) {
        info->blockSizeID = LZ4F_max256KB;
        encoder->block_bytes = 256 * KIB;
    } else {
        info->blockSizeID = LZ4F_max1MB;
        encoder->block_bytes = 1024 * KIB;
    }
    info->blockMode = LZ4F_blockIndependent;
    info->contentChecksumFlag = LZ4F_contentChecksumEnabled;
    info->blockChecksumFlag = LZ4F_noBlockChecksum;
    encoder->prefs.autoFlush = 1;
}

static lj_code encoder_begin(lj_lz4_encoder *encoder, lj_error *err)
{
    size_t n = LZ4F_createCompressionContext(&encoder->cctx, LZ4F_VERSION);
    if (LZ4F_isError(n))
        return lz4_failed(err, "cannot start compressing", n);
    if (encoder->out == NULL) {
        /* label, header, one block, end mark with checksum: the most that is ever between two hand-outs */
        encoder->out_cap = sizeof(encoder->label) + LZ4F_HEADER_SIZE_MAX +
                           LZ4F_compressBound(encoder->block_bytes, &encoder->prefs) +
                           LZ4F_compressBound(0, &encoder->prefs);
        if (encoder->in == NULL)
            encoder->in = malloc(encoder->block_bytes);
        if (encoder->in != NULL)
            encoder->out = malloc(encoder->out_cap);
        if (encoder->out == NULL)
            return lj_error_nomem(err);
    }
    memcpy(encoder->out, encoder->label, encoder->label_len);
    n = LZ4F_compressBegin(encoder->cctx, encoder->out + encoder->label_len,
                           encoder->out_cap - encoder->label_len, &encoder->prefs);
    if (LZ4F_isError(n))
        return lz4_failed(err, "cannot start compressing", n);
    encoder->out_len = encoder->label_len + n;
    encoder->state = ENCODER_BODY;
    return LJ_OK;
}

/* Reads a block, short only at the end of the source. */
static lj_code encoder_fill(lj_lz4_encoder *encoder, size_t *ret_len, lj_error *err)
{
    lj_source *source = encoder->source;
    size_t len = 0;
    while (len < encoder->block_bytes) {
        size_t n = 0;
        LJ_TRY(source->read(source->ctx, encoder->in + len, encoder->block_bytes - len, &n, err));
        if (n == 0)
            break;
        if (n > encoder->block_bytes - len)
            return lj_error_set(err, LJ_INTERNAL, "a source gave more bytes than asked for");
        len += n;
    }
    encoder->bytes_in += len;
    *ret_len = len;
    return LJ_OK;
}

/* Puts the next compressed bytes behind to[*len], which has room for encoder->out_cap from its begin. */
static lj_code encoder_step(lj_lz4_encoder *encoder, uint8_t *to, size_t *len, lj_error *err)
{
    size_t in_len = 0;
    LJ_TRY(encoder_fill(encoder, &in_len, err));
    if (in_len > 0) {
        size_t n = LZ4F_compressUpdate(encoder->cctx, to + *len, encoder->out_cap - *len,
                                       encoder->in, in_len, NULL);
        if (LZ4F_isError(n))
            return lz4_failed(err, "cannot compress", n);
        *len += n;
    }
    if (in_len < encoder->block_bytes) {
        size_t n = LZ4F_compressEnd(encoder->cctx, to + *len, encoder->out_cap - *len, NULL);
        if (LZ4F_isError(n))
            return lz4_failed(err, "cannot end a compressed object", n);
        *len += n;
        encoder->state = ENCODER_END;
    }
    return LJ_OK;
}

/* The next bytes: straight to the reader where they are sure to fit, else into `out`, from where they are handed out. */
static lj_code encoder_next(lj_lz4_encoder *encoder, uint8_t *to, size_t max, size_t *ret_n,
                            lj_error *err)
{
    encoder->out_pos = 0;
    encoder->out_len = 0;
    *ret_n = 0;
    if (encoder->state == ENCODER_START)
        LJ_TRY(encoder_begin(encoder, err));
    else if (max >= encoder->out_cap)
        return encoder_step(encoder, to, ret_n, err);
    return encoder_step(encoder, encoder->out, &encoder->out_len, err);
}

static lj_code encoder_read(void *ctx, void *out, size_t max, size_t *ret_n, lj_error *err)
{
    lj_lz4_encoder *encoder = ctx;
    size_t n = 0;
    if (encoder->state == ENCODER_FAILED)
        return lj_error_set(err, LJ_INTERNAL, "a compressor was read after it failed");
    if (encoder->out_pos == encoder->out_len && encoder->state != ENCODER_END) {
        lj_code code = encoder_next(encoder, out, max, &n, err);
        if (code != LJ_OK) {
            encoder->state = ENCODER_FAILED;
            return code;
        }
    }
    if (n == 0) {
        n = LJ_MIN(max, encoder->out_len - encoder->out_pos);
        if (n > 0)
            memcpy(out, encoder->out + encoder->out_pos, n);
        encoder->out_pos += n;
    }
    encoder->bytes_out += n;
    *ret_n = n;
    return LJ_OK;
}

static lj_code encoder_rewind(void *ctx, lj_error *err)
{
    lj_lz4_encoder *encoder = ctx;
    encoder->state = ENCODER_FAILED;
    LJ_TRY(encoder->source->rewind(encoder->source->ctx, err));
    /* a context that stopped in the middle of a frame is not reusable in every version of liblz4 */
    LZ4F_freeCompressionContext(encoder->cctx);
    encoder->cctx = NULL;
    encoder->out_pos = 0;
    encoder->out_len = 0;
    encoder->bytes_in = 0;
    encoder->bytes_out = 0;
    encoder->state = ENCODER_START;
    return LJ_OK;
}

lj_code lj_lz4_encoder_new(lj_source *source, lj_lz4_encoder **ret_encoder, lj_source *ret_source,
                           lj_error *err)
{
    lj_lz4_encoder *encoder = calloc(1, sizeof(*encoder));
    if (encoder == NULL)
        return lj_error_nomem(err);
    encoder->source = source;
    choose_block(encoder);
    *ret_encoder = encoder;
    *ret_source =
        (lj_source){.ctx = encoder, .read = encoder_read, .rewind = encoder_rewind, .size = -1};
    return LJ_OK;
}

void lj_lz4_encoder_label(lj_lz4_encoder *encoder, const void *label, size_t len)
{
    len = LJ_MIN(len, (size_t)LJ_LZ4_LABEL_MAX);
    put_le32(encoder->label, MAGIC_SKIP);
    put_le32(encoder->label + 4, (uint32_t)len);
    memcpy(encoder->label + SKIP_HEADER_BYTES, label, len);
    encoder->label_len = SKIP_HEADER_BYTES + len;
}

uint64_t lj_lz4_encoder_bytes_in(const lj_lz4_encoder *encoder)
{
    return encoder->bytes_in;
}

uint64_t lj_lz4_encoder_bytes_out(const lj_lz4_encoder *encoder)
{
    return encoder->bytes_out;
}

void lj_lz4_encoder_free(lj_lz4_encoder *encoder)
{
    if (encoder == NULL)
        return;
    LZ4F_freeCompressionContext(encoder->cctx);
    free(encoder->in);
    free(encoder->out);
    free(encoder);
}

/* ---- decoder ---- */

static const char AGE_MAGIC[] = "age-encryption.org/v1";
#define AGE_MAGIC_BYTES (sizeof(AGE_MAGIC) - 1)

typedef enum {
    DECODER_HEAD, /* collecting the first bytes of a frame */
    DECODER_SKIP, /* inside a skippable frame */
    DECODER_BODY,
    DECODER_DONE,
    DECODER_FAILED
} decoder_state;

struct lj_lz4_decoder {
    lj_sink *sink;
    LZ4F_dctx *dctx;
    decoder_state state;
    bool trailing;
    uint8_t head[24]; /* the longest of: frame header (19), age magic (21) */
    size_t head_len;
    uint64_t skip_left;
    bool labelled; /* a skippable frame was begun */
    bool collecting;
    uint8_t label[LJ_LZ4_LABEL_MAX];
    size_t label_len;
    size_t want;  /* compressed bytes up to the next block border */
    uint8_t *out; /* one block */
    size_t out_cap;
    uint64_t bytes_in;
    uint64_t bytes_out;
};

static lj_code corrupt(const lj_lz4_decoder *decoder, lj_error *err, size_t result)
{
    const char *name = LZ4F_getErrorName(result);
    uint64_t at = decoder->bytes_in;
    if (strcmp(name, "ERROR_allocation_failed") == 0)
        return lj_error_nomem(err);
    if (strcmp(name, "ERROR_contentChecksum_invalid") == 0)
        lj_error_set(err, LJ_CORRUPT,
                     "LZ4: the content checksum does not match the %" PRIu64
                     " decompressed bytes (near compressed byte %" PRIu64 ")",
                     decoder->bytes_out, at);
    else
        lj_error_set(err, LJ_CORRUPT, "LZ4: damaged data near compressed byte %" PRIu64 " (%s)", at,
                     name);
    return lj_error_hint(err,
                         "the object was damaged after it was written, or on the way; fetch it "
                         "again or restore from another snapshot");
}

/* Says what the first bytes are when they are no LZ4 frame. */
static lj_code not_lz4(const uint8_t *head, lj_error *err)
{
    if (get_le32(head) == MAGIC_LEGACY) {
        lj_error_set(err, LJ_UNSUPPORTED, "the object is a legacy LZ4 file, not an LZ4 frame");
        return lj_error_hint(err,
                             "rewrite it as a frame: lz4 -dc OBJECT | lz4 -B6 > NEW, and keep its "
                             "modification time");
    }
    lj_error_set(err, LJ_CORRUPT, "not an LZ4 frame: it starts with the bytes %02x %02x %02x %02x",
                 head[0], head[1], head[2], head[3]);
    return lj_error_hint(err, "the object was overwritten or was not written by a replicator");
}

static lj_code age_encrypted(lj_error *err)
{
    lj_error_set(err, LJ_UNSUPPORTED, "the object is encrypted with age");
    return lj_error_hint(err,
                         "configure the age identity of this replica, or decrypt the object with "
                         "the age tool first");
}

static lj_code begin_frame(lj_lz4_decoder *decoder, lj_error *err)
{
    LZ4F_frameInfo_t info = LZ4F_INIT_FRAMEINFO;
    size_t n = LZ4F_createDecompressionContext(&decoder->dctx, LZ4F_VERSION);
    if (LZ4F_isError(n))
        return lz4_failed(err, "cannot start decompressing", n);
    size_t used = decoder->head_len;
    n = LZ4F_getFrameInfo(decoder->dctx, &info, decoder->head, &used);
    if (LZ4F_isError(n))
        return corrupt(decoder, err, n);
    if (info.dictID != 0)
        return lj_error_set(err, LJ_UNSUPPORTED, "the LZ4 frame needs dictionary %u", info.dictID);
    static const size_t sizes[] = {64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB};
    if (info.blockSizeID < LZ4F_max64KB || info.blockSizeID > LZ4F_max4MB)
        return lj_error_set(err, LJ_CORRUPT, "LZ4: unknown block size %d", (int)info.blockSizeID);
    decoder->out_cap = sizes[info.blockSizeID - LZ4F_max64KB];
    decoder->out = malloc(decoder->out_cap);
    if (decoder->out == NULL)
        return lj_error_nomem(err);
    decoder->want = n;
    decoder->state = DECODER_BODY;
    return LJ_OK;
}

/*
 * Looks at the bytes collected so far. *ret_need is how many are needed for the next decision; state leaves
 * DECODER_HEAD when the frame's kind is settled.
 */
static lj_code judge_head(lj_lz4_decoder *decoder, size_t *ret_need, lj_error *err)
{
    const uint8_t *head = decoder->head;
    size_t len = decoder->head_len;
    *ret_need = 4;
    if (len < 4)
        return LJ_OK;
    uint32_t magic = get_le32(head);
    if (magic == MAGIC_FRAME) {
        *ret_need = LZ4F_MIN_SIZE_TO_KNOW_HEADER_LENGTH;
        if (len < *ret_need)
            return LJ_OK;
        size_t n = LZ4F_headerSize(head, len);
        if (LZ4F_isError(n))
            return corrupt(decoder, err, n);
        *ret_need = n;
        return len < n ? LJ_OK : begin_frame(decoder, err);
    }
    if ((magic & ~UINT32_C(15)) == MAGIC_SKIP) {
        *ret_need = SKIP_HEADER_BYTES;
        if (len < *ret_need)
            return LJ_OK;
        decoder->skip_left = get_le32(head + 4);
        decoder->collecting = !decoder->labelled && decoder->skip_left <= LJ_LZ4_LABEL_MAX;
        decoder->labelled = true;
        decoder->head_len = 0;
        decoder->state = DECODER_SKIP;
        return LJ_OK;
    }
    if (memcmp(head, AGE_MAGIC, len) == 0) {
        *ret_need = AGE_MAGIC_BYTES;
        return len < AGE_MAGIC_BYTES ? LJ_OK : age_encrypted(err);
    }
    return not_lz4(head, err);
}

static lj_code take_head(lj_lz4_decoder *decoder, const uint8_t *data, size_t len, size_t *ret_used,
                         lj_error *err)
{
    size_t used = 0;
    size_t need = 0;
    LJ_TRY(judge_head(decoder, &need, err));
    while (decoder->state == DECODER_HEAD && used < len) {
        size_t n = LJ_MIN(need - decoder->head_len, len - used);
        memcpy(decoder->head + decoder->head_len, data + used, n);
        decoder->head_len += n;
        decoder->bytes_in += n;
        used += n;
        LJ_TRY(judge_head(decoder, &need, err));
    }
    *ret_used = used;
    return LJ_OK;
}

static void take_skipped(lj_lz4_decoder *decoder, const uint8_t *data, size_t len, size_t *ret_used)
{
    size_t n = (size_t)LJ_MIN((uint64_t)len, decoder->skip_left);
    if (decoder->collecting) {
        memcpy(decoder->label + decoder->label_len, data, n);
        decoder->label_len += n;
    }
    decoder->skip_left -= n;
    decoder->bytes_in += n;
    if (decoder->skip_left == 0)
        decoder->state = DECODER_HEAD;
    *ret_used = n;
}

static lj_code take_body(lj_lz4_decoder *decoder, const uint8_t *data, size_t len, size_t *ret_used,
                         lj_error *err)
{
    size_t used = LJ_MIN(len, decoder->want);
    size_t made = decoder->out_cap;
    size_t n = LZ4F_decompress(decoder->dctx, decoder->out, &made, data, &used, NULL);
    if (LZ4F_isError(n))
        return corrupt(decoder, err, n);
    if (used == 0 && made == 0)
        return lj_error_set(err, LJ_INTERNAL, "liblz4 makes no progress");
    decoder->bytes_in += used;
    decoder->bytes_out += made;
    decoder->want = n;
    if (n == 0)
        decoder->state = DECODER_DONE;
    *ret_used = used;
    return made > 0 ? decoder->sink->write(decoder->sink->ctx, decoder->out, made, err) : LJ_OK;
}

/* One step in the current state; takes at least one byte, or changes the state, or hands bytes out. */
static lj_code decoder_step(lj_lz4_decoder *decoder, const uint8_t *data, size_t len,
                            size_t *ret_used, lj_error *err)
{
    switch (decoder->state) {
    case DECODER_HEAD:
        return take_head(decoder, data, len, ret_used, err);
    case DECODER_SKIP:
        take_skipped(decoder, data, len, ret_used);
        return LJ_OK;
    case DECODER_BODY:
        return take_body(decoder, data, len, ret_used, err);
    case DECODER_DONE:
        decoder->trailing = true;
        *ret_used = len;
        return LJ_OK;
    case DECODER_FAILED:
        break;
    }
    return lj_error_set(err, LJ_INTERNAL, "a decompressor was written to after it failed");
}

static lj_code decoder_write(void *ctx, const void *data, size_t len, lj_error *err)
{
    lj_lz4_decoder *decoder = ctx;
    const uint8_t *at = data;
    while (len > 0) {
        size_t used = 0;
        lj_code code = decoder_step(decoder, at, len, &used, err);
        if (code != LJ_OK) {
            decoder->state = DECODER_FAILED;
            return code;
        }
        at += used;
        len -= used;
    }
    return LJ_OK;
}

lj_code lj_lz4_decoder_new(lj_sink *sink, lj_lz4_decoder **ret_decoder, lj_sink *ret_sink,
                           lj_error *err)
{
    lj_lz4_decoder *decoder = calloc(1, sizeof(*decoder));
    if (decoder == NULL)
        return lj_error_nomem(err);
    decoder->sink = sink;
    *ret_decoder = decoder;
    *ret_sink = (lj_sink){.ctx = decoder, .write = decoder_write};
    return LJ_OK;
}

lj_code lj_lz4_decoder_finish(lj_lz4_decoder *decoder, lj_error *err)
{
    if (decoder->state == DECODER_DONE)
        return LJ_OK;
    if (decoder->state == DECODER_FAILED)
        return lj_error_set(err, LJ_CORRUPT, "the LZ4 data could not be decompressed");
    if (decoder->bytes_in == 0)
        lj_error_set(err, LJ_CORRUPT, "the object is empty (0 bytes), an LZ4 frame was expected");
    else
        lj_error_set(err, LJ_CORRUPT,
                     "the LZ4 frame is truncated: it ends after %" PRIu64
                     " compressed bytes (%" PRIu64 " decompressed)",
                     decoder->bytes_in, decoder->bytes_out);
    return lj_error_hint(err, "the object is incomplete; fetch it again or restore from another "
                              "snapshot");
}

const uint8_t *lj_lz4_decoder_label(const lj_lz4_decoder *decoder, size_t *ret_len)
{
    *ret_len = decoder->skip_left == 0 ? decoder->label_len : 0;
    return decoder->label;
}

bool lj_lz4_decoder_trailing(const lj_lz4_decoder *decoder)
{
    return decoder->trailing;
}

uint64_t lj_lz4_decoder_bytes_out(const lj_lz4_decoder *decoder)
{
    return decoder->bytes_out;
}

void lj_lz4_decoder_free(lj_lz4_decoder *decoder)
{
    if (decoder == NULL)
        return;
    LZ4F_freeDecompressionContext(decoder->dctx);
    free(decoder->out);
    free(decoder);
}
