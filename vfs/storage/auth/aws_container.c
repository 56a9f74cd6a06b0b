/*
 * aws_container.c - credentials of an ECS task or an EKS pod, from the agent beside it.
 *
 * The full URI comes from the environment and may point anywhere: over plain HTTP, only to this machine and to the agents' own
 * addresses, as the SDKs have it, so that nobody can send the authorization elsewhere. A name is not resolved for that:
 * of names only localhost counts as this machine. The authorization's file is read again at each fetch, because EKS
 * writes a new one every hour.
 *
 * Layer: storage. Source: AWS SDKs and Tools reference, "Container credential provider".
 */
#include "vfs/storage/auth/aws_metadata.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "vfs/base/clock.h"
#include "vfs/base/io.h"
#include "vfs/base/str.h"
#include "vfs/storage/url.h"

#define AUTHORIZATION_MAX ((size_t)16 * 1024)
#define REQUEST_NS        (4 * LJ_NS_PER_S)

/* ---- where it may go ---- */

static bool is_agent(const char *host)
{
    static const char *const agents[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23"};
    unsigned char address[16];
    unsigned char agent[16];
    int family = strchr(host, ':') != NULL ? AF_INET6 : AF_INET;
    size_t len = family == AF_INET6 ? 16 : 4;
    if (inet_pton(family, host, address) != 1)
        return false;
    for (size_t i = 0; i < LJ_ARRAY_LEN(agents); i++) {
        if (inet_pton(family, agents[i], agent) == 1 && memcmp(address, agent, len) == 0)
            return true;
    }
    return false;
}

static bool is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static lj_code check_url(const char *text, bool *ret_tls, lj_error *err)
{
    lj_url url;
    lj_code code = lj_url_parse(text, &url, err);
    if (code != LJ_OK)
        return lj_error_context(err, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    bool tls = strcmp(url.scheme, "https") == 0;
    bool http = strcmp(url.scheme, "http") == 0;
    bool good =
        (tls && url.host[0] != 0) || (http && (is_loopback(url.host) || is_agent(url.host)));
    if (!good) {
        code = lj_error_set(err, LJ_INVALID,
                            "AWS_CONTAINER_CREDENTIALS_FULL_URI: \"%.100s\" is not allowed there",
                            url.host);
        lj_error_hint(err, "it is https, or http to localhost, 169.254.170.2, 169.254.170.23 or "
                           "[fd00:ec2::23]");
    }
    lj_url_free(&url);
    *ret_tls = tls;
    return code;
}

/* ---- the authorization ---- */

static lj_code read_authorization(const lj_aws_source *source, lj_secret *ret_value, lj_error *err)
{
    if (source->token_file == NULL)
        return lj_secret_copy(ret_value, &source->authorization, err);
    return lj_aws_read_token_file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", source->token_file,
                                  AUTHORIZATION_MAX, ret_value, err);
}

/* "Authorization: ...", NULL when there is none; wiped by the caller. */
static lj_code make_header(const lj_aws_source *source, char **ret_header, lj_error *err)
{
    LJ_CLEANUP(lj_secret_free) lj_secret value = LJ_SECRET_NONE;
    LJ_TRY(read_authorization(source, &value, err));
    if (!lj_secret_is_set(&value))
        return LJ_OK;
    const char *text = lj_secret_text(&value);
    if (strpbrk(text, "\r\n") != NULL)
        return lj_error_set(err, LJ_INVALID, "AWS_CONTAINER_AUTHORIZATION_TOKEN has a line break");
    *ret_header = lj_str_printf("Authorization: %s", text);
    return *ret_header == NULL ? lj_error_nomem(err) : LJ_OK;
}

/* ---- all of it ---- */

static lj_code ask(lj_aws_metadata *metadata, const lj_aws_source *source, const char *header,
                   lj_http_response *response, lj_token *ret_token, lj_error *err)
{
    const char *const headers[] = {"Accept: application/json", header, NULL};
    LJ_TRY(lj_aws_metadata_ask(metadata, "GET", source->url, headers, response, err));
    if (response->status != 200) {
        lj_aws_json_refusal(source->origin, response, err);
        return lj_error_retryable(err, true);
    }
    return lj_aws_json_token(source->origin, LJ_AWS_JSON_CONTAINER, lj_buf_text(&response->body),
                             response->body.len, lj_aws_clock_skew_ns(response), ret_token, err);
}

lj_code lj_aws_container_fetch(const lj_aws_source *source, lj_token *ret_token, lj_error *err)
{
    bool tls = false;
    LJ_TRY(check_url(source->url, &tls, err));
    LJ_CLEANUP(lj_wipe_freep) char *header = NULL;
    LJ_TRY(make_header(source, &header, err));
    lj_aws_metadata metadata = lj_aws_metadata_begin(source, REQUEST_NS);
    metadata.no_proxy = !tls;
    LJ_CLEANUP(lj_http_response_free) lj_http_response response = LJ_HTTP_RESPONSE_INIT;
    lj_code code = ask(&metadata, source, header, &response, ret_token, err);
    if (code != LJ_OK && code != LJ_CANCELLED)
        lj_error_context(err, "AWS credentials of the container");
    return code;
}
