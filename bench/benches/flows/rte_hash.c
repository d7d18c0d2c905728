/* Cycles a lookup of DPDK's rte_hash in bulks of 64, the most it takes; keys are in the first-level cache.
 * rte_hash KEYS: prints for keys of 16 and of 40 bytes a line of the length and the cycles of each run. */
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 11, BULKS = 8000, BULK = RTE_HASH_LOOKUP_BULK_MAX };

static uint64_t state = 88172645463325252ull;

static uint32_t below(uint32_t end)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(((state >> 32) * end) >> 32);
}

/* Key n, whose words all differ from its neighbours'. */
static void make_key(uint8_t *key, uint32_t length, uint32_t n)
{
	for (uint32_t at = 0; at < length; at += 4) {
		uint32_t word = (n + at) * 2654435761u;
		memcpy(key + at, at == 0 ? &n : &word, 4);
	}
}

static int measure(uint32_t length, uint32_t keys)
{
	static uint8_t asked[BULK][64];
	const void *pointers[BULK];
	int32_t found[BULK];
	struct rte_hash_parameters parameters = {
		.name = length == 16 ? "short" : "long",
		.entries = keys + keys / 3,
		.key_len = length,
		.hash_func = rte_hash_crc,
		.hash_func_init_val = 42,
		.socket_id = 0,
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF,
	};
	struct rte_hash *table = rte_hash_create(&parameters);
	if (table == NULL)
		return 1;
	for (uint32_t n = 0; n < keys; n++) {
		make_key(asked[0], length, n);
		if (rte_hash_add_key(table, asked[0]) < 0)
			return 1;
	}
	for (int i = 0; i < BULK; i++)
		pointers[i] = asked[i];
	printf("%u", length);
	for (int run = 0; run < RUNS; run++) {
		uint64_t total = 0;
		for (int bulk = 0; bulk < BULKS; bulk++) {
			for (int i = 0; i < BULK; i++)
				make_key(asked[i], length, below(keys));
			uint64_t start = rte_rdtsc();
			rte_hash_lookup_bulk(table, pointers, BULK, found);
			total += rte_rdtsc() - start;
			for (int i = 0; i < BULK; i++)
				if (found[i] < 0)
					return 1;
		}
		printf(" %.1f", (double)total / BULKS / BULK);
	}
	printf("\n");
	rte_hash_free(table);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t keys = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
	/* Memory as much as it asks for, of the kernel's ordinary pages: huge ones have to be reserved for DPDK. */
	char *arguments[] = { "rte_hash", "--no-huge", "-m", "8192", "--no-pci", "--no-telemetry", "-l", "1", "--log-level=1" };
	if (rte_eal_init(sizeof(arguments) / sizeof(*arguments), arguments) < 0)
		return 1;
	return measure(16, keys) || measure(40, keys);
}
