/*
 * lz4.h - the LZ4 frame profile of the replica (replica-format: one frame per object, independent blocks of 4 MiB,
 * content checksum on, block checksums off, no dictionary), as a source that compresses and a sink that decompresses.
 *
 * Written frames are what Litestream v0.3.13 and v0.5 accept. The reader accepts everything liblz4 accepts,
 * and says what is wrong with what it does not: another format, an age-encrypted object, a truncated frame,
 * a checksum that does not match, bytes behind the frame (a warning: `trailing` is set, the data is good).
 *
 * Layer: codec (pure: bytes in, bytes out). Thread-safety: one object, one thread.
 * Memory: the block buffers follow the content (64 KiB blocks when `source->size` is known and small, 4 MiB
 * otherwise), at most about 8.5 MiB each for an encoder, about 8 MiB for a decoder, allocated at the first byte.
 * Source: LZ4 frame format specification v1.6.2; fields chosen as the v0.3 format prescribes.
 */
#ifndef LJ_LZ4_H
#define LJ_LZ4_H

#include "vfs/base/stream.h"

typedef struct lj_lz4_encoder lj_lz4_encoder;
typedef struct lj_lz4_decoder lj_lz4_decoder;

/*
 * A compressor around `source`, which must outlive it. *ret_source is valid until the encoder is freed; its
 * size is -1; rewind rewinds the inner source and starts a new frame.
 */
LJ_WARN_UNUSED lj_code lj_lz4_encoder_new(lj_source *source, lj_lz4_encoder **ret_encoder,
                                          lj_source *ret_source, lj_error *err);
/* Bytes read from the inner source / handed out so far (since the last rewind). */
uint64_t lj_lz4_encoder_bytes_in(const lj_lz4_encoder *encoder);
uint64_t lj_lz4_encoder_bytes_out(const lj_lz4_encoder *encoder);
void lj_lz4_encoder_free(lj_lz4_encoder *encoder);

/* A decompressor in front of `sink`, which must outlive it: write compressed bytes to *ret_sink. */
LJ_WARN_UNUSED lj_code lj_lz4_decoder_new(lj_sink *sink, lj_lz4_decoder **ret_decoder,
                                          lj_sink *ret_sink, lj_error *err);
/* To be called behind the last byte: LJ_CORRUPT when the frame is not complete. */
LJ_WARN_UNUSED lj_code lj_lz4_decoder_finish(lj_lz4_decoder *decoder, lj_error *err);
/* True when bytes followed the frame; they were ignored. */
bool lj_lz4_decoder_trailing(const lj_lz4_decoder *decoder);
uint64_t lj_lz4_decoder_bytes_out(const lj_lz4_decoder *decoder);
void lj_lz4_decoder_free(lj_lz4_decoder *decoder);

#endif
