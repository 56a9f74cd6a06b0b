/*
 * lz4.h - the LZ4 frame profile of the replica (replica-format: one frame per object, independent blocks, content
 * checksum on, block checksums off, no content size, no dictionary), as a source that compresses and a sink that
 * decompresses.
 *
 * Written frames are what Litestream v0.3.13 and v0.5 accept; both take every block size. Litestream itself writes
 * blocks of 4 MiB (header 04 22 4D 18 64 70 B9). This encoder writes blocks of 64 KiB when `source->size` is known and
 * at most that, of 256 KiB likewise, and of 1 MiB otherwise: next to 4 MiB that costs 0.1 % to 0.6 % of size on ordinary
 * databases (3 % on content that shrinks to a fortieth) and saves 6 MiB of memory. 64 KiB or 256 KiB for everything
 * would cost up to half on content that compresses very well.
 *
 * The reader accepts everything liblz4 accepts, and says what is wrong with what it does not: another format (also
 * the legacy LZ4 format), an age-encrypted object, a dictionary, a truncated frame, a checksum that does not match.
 * Skippable frames in front of the frame are skipped; the first of them can be asked for (lj_lz4_decoder_label). Bytes behind the frame, which includes a second frame, are
 * ignored as v0.3.13 does: `trailing` is set, the data is good.
 *
 * Layer: codec (pure: bytes in, bytes out). Thread-safety: one object, one thread.
 * Memory: allocated at the first byte. An encoder holds two blocks and 16 KiB, so at most 2.1 MiB; a decoder follows
 * the block size of the frame: about 8 MiB are touched for incompressible 4 MiB blocks, less otherwise.
 * Source: LZ4 frame format specification v1.6.2; fields chosen as the v0.3 format prescribes.
 */
#ifndef LJ_LZ4_H
#define LJ_LZ4_H

#include "vfs/base/stream.h"

#define LJ_LZ4_LABEL_MAX 64u

typedef struct lj_lz4_encoder lj_lz4_encoder;
typedef struct lj_lz4_decoder lj_lz4_decoder;

/*
 * A compressor around `source`, which must outlive it. *ret_source is valid until the encoder is freed; its
 * size is -1; rewind rewinds the inner source and starts a new frame. Errors while reading: those of the source,
 * LJ_NOMEM; after an error it can only be rewound.
 */
LJ_WARN_UNUSED lj_code lj_lz4_encoder_new(lj_source *source, lj_lz4_encoder **ret_encoder,
                                          lj_source *ret_source, lj_error *err);
/*
 * Puts `len` bytes (at most LJ_LZ4_LABEL_MAX) as a skippable frame in front of the frame. Before the first byte is read; a
 * rewind keeps it.
 */
void lj_lz4_encoder_label(lj_lz4_encoder *encoder, const void *label, size_t len);
/* Bytes read from the inner source / handed out so far (since the last rewind). */
uint64_t lj_lz4_encoder_bytes_in(const lj_lz4_encoder *encoder);
uint64_t lj_lz4_encoder_bytes_out(const lj_lz4_encoder *encoder);
void lj_lz4_encoder_free(lj_lz4_encoder *encoder);

/*
 * A decompressor in front of `sink`, which must outlive it: write compressed bytes, in pieces of any size, to
 * *ret_sink. Errors while writing: LJ_CORRUPT (damaged, not LZ4, wrong checksum), LJ_UNSUPPORTED (age-encrypted, legacy format,
 * dictionary), LJ_NOMEM, and those of the sink. Content is handed out block by block, before the checksum behind it
 * was seen: it is good only when lj_lz4_decoder_finish says so.
 */
LJ_WARN_UNUSED lj_code lj_lz4_decoder_new(lj_sink *sink, lj_lz4_decoder **ret_decoder,
                                          lj_sink *ret_sink, lj_error *err);
/* To be called behind the last byte: LJ_CORRUPT when there is no frame or it is not complete. */
LJ_WARN_UNUSED lj_code lj_lz4_decoder_finish(lj_lz4_decoder *decoder, lj_error *err);
/* The first skippable frame in front of the frame; 0 bytes when there was none, or none of at most LJ_LZ4_LABEL_MAX. */
const uint8_t *lj_lz4_decoder_label(const lj_lz4_decoder *decoder, size_t *ret_len);
/* True when bytes followed the frame; they were ignored. */
bool lj_lz4_decoder_trailing(const lj_lz4_decoder *decoder);
uint64_t lj_lz4_decoder_bytes_out(const lj_lz4_decoder *decoder);
void lj_lz4_decoder_free(lj_lz4_decoder *decoder);

#endif
