/*
 * aws_metadata.c - see aws_metadata.h.
 *
 * Layer: storage.
 */
#include "vfs/storage/auth/aws_metadata.h"

#include "vfs/base/clock.h"

#define CONNECT_NS     (1 * LJ_NS_PER_S)
#define ALL_NS         (4500 * LJ_NS_PER_MS)
#define BETWEEN_NS     (100 * LJ_NS_PER_MS)
#define TRIES          3
#define ANSWER_MAX     ((size_t)64 * 1024)
#define REQUEST_MIN_NS (50 * LJ_NS_PER_MS)

lj_aws_metadata lj_aws_metadata_begin(const lj_aws_source *source, int64_t request_ns)
{
    return (lj_aws_metadata){
        .http = source->near_http, .end_ns = lj_clock_mono_ns() + ALL_NS, .request_ns = request_ns};
}

static bool try_again(lj_code code, const lj_http_response *response)
{
    if (code != LJ_OK)
        return code == LJ_UNAVAILABLE || code == LJ_TIMEOUT;
    return response->status == 429 || response->status >= 500;
}

lj_code lj_aws_metadata_ask(lj_aws_metadata *metadata, const char *method, const char *url,
                            const char *const *headers, lj_http_response *response, lj_error *err)
{
    lj_http_request request = {.method = method,
                               .url = url,
                               .headers = headers,
                               .body_max = ANSWER_MAX,
                               .connect_timeout_ns = CONNECT_NS,
                               .no_proxy = metadata->no_proxy};
    /* room for all of it at once: an answer that grows would leave copies of secrets behind */
    lj_wipe(response->body.data, response->body.len);
    lj_buf_clear(&response->body);
    lj_code code = lj_buf_reserve(&response->body, ANSWER_MAX, err);
    if (code != LJ_OK)
        return code;
    for (int attempt = 1;; attempt++) {
        int64_t left_ns = metadata->end_ns - lj_clock_mono_ns();
        request.total_timeout_ns =
            LJ_MAX(LJ_MIN(left_ns, metadata->request_ns), (int64_t)REQUEST_MIN_NS);
        code = lj_http_perform(metadata->http, &request, response, err);
        if (!try_again(code, response))
            return code;
        left_ns = metadata->end_ns - lj_clock_mono_ns();
        if (attempt == TRIES || left_ns <= BETWEEN_NS)
            break;
        lj_clock_sleep_ns(BETWEEN_NS);
    }
    return code != LJ_OK ? code : lj_http_status_error(response, method, NULL, err);
}
