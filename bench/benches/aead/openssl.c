/* OpenSSL, by EVP: a context for each packet has its key. */

#include "peer.h"
#include <openssl/evp.h>

static void prepare(struct packet *packet)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (EVP_CipherInit_ex(context, EVP_chacha20_poly1305(), NULL, packet->key, NULL, 1) != 1)
        fail("EVP_CipherInit_ex");
    packet->state = context;
}

static void seal(struct packet *packet, const unsigned char nonce[12])
{
    EVP_CIPHER_CTX *context = packet->state;
    int length;
    if (EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, 1) != 1
        || EVP_CipherUpdate(context, packet->text, &length, packet->text, packet->length) != 1
        || EVP_CipherFinal_ex(context, packet->text + length, &length) != 1
        || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof packet->tag, packet->tag) != 1)
        fail("sealing");
}

static void open_(struct packet *packet, const unsigned char nonce[12])
{
    EVP_CIPHER_CTX *context = packet->state;
    int length;
    if (EVP_CipherInit_ex(context, NULL, NULL, NULL, nonce, 0) != 1
        || EVP_CipherUpdate(context, packet->text, &length, packet->text, packet->length) != 1
        || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof packet->tag, packet->tag) != 1
        || EVP_CipherFinal_ex(context, packet->text + length, &length) != 1)
        fail("opening");
}
