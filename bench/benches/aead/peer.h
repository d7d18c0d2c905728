/* What programs that measure a library share. The file that includes this one defines prepare, seal and open_ (open is
 * taken). Usage: PROGRAM LENGTH VECTOR VECTORS ROUNDS. A line a round: cycles to seal, cycles to open, the last tag. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

struct packet {
    unsigned char key[32];
    unsigned char tag[16];
    unsigned char *text; /* sealed and opened where it stands */
    int length;
    void *state; /* the library's own */
};

static void prepare(struct packet *packet);
static void seal(struct packet *packet, const unsigned char nonce[12]);
/* Ends the program if the packet is not authentic. */
static void open_(struct packet *packet, const unsigned char nonce[12]);

static void fail(const char *what)
{
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

int main(int count, char **words)
{
    if (count != 5)
        fail("reading LENGTH VECTOR VECTORS ROUNDS");
    int length = atoi(words[1]), vector = atoi(words[2]), vectors = atoi(words[3]), rounds = atoi(words[4]);
    struct packet *packets = calloc(vector, sizeof *packets);
    for (int i = 0; i < vector; i++) {
        struct packet *packet = &packets[i];
        memset(packet->key, i, sizeof packet->key);
        packet->length = length;
        packet->text = malloc(length);
        memset(packet->text, i, length);
        prepare(packet);
    }
    uint64_t counter = 0;
    while (rounds--) {
        uint64_t sealing = 0, opening = 0;
        for (int n = 0; n < vectors; n++) {
            unsigned char nonce[12] = {0};
            counter++;
            memcpy(nonce + 4, &counter, sizeof counter);
            uint64_t start = __rdtsc();
            for (int i = 0; i < vector; i++)
                seal(&packets[i], nonce);
            uint64_t middle = __rdtsc();
            for (int i = 0; i < vector; i++)
                open_(&packets[i], nonce);
            sealing += middle - start;
            opening += __rdtsc() - middle;
        }
        printf("%llu %llu ", (unsigned long long)sealing, (unsigned long long)opening);
        for (int i = 0; i < 16; i++)
            printf("%02x", packets[vector - 1].tag[i]);
        printf("\n");
    }
    return 0;
}
