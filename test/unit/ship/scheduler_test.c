/* scheduler_test.c - due order, wake-ups while running, stop, stalls, and that an idle process sleeps. */
#include "test/unit/unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#include "vfs/base/clock.h"
#include "vfs/ship/scheduler.h"

#define MS LJ_NS_PER_MS

typedef struct {
    lj_task task;
    atomic_int runs;
    atomic_int inside;  /* running at this moment */
    atomic_int overlap; /* ran in two workers at once */
    atomic_bool hold;   /* run until this is false */
    atomic_int_fast64_t last_ns;
    int number;
    int64_t again_in_ns; /* what run returns, counted from now; -1 = idle */
} work;

static atomic_bool no_memory; /* every allocation of this program fails */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return atomic_load(&no_memory) ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return atomic_load(&no_memory) ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
    return atomic_load(&no_memory) ? NULL : __real_realloc(old, size);
}

static pthread_mutex_t order_mutex = PTHREAD_MUTEX_INITIALIZER;
enum { ORDER_MAX = 300 };
static int order[ORDER_MAX];
static int order_count;

static int64_t run(lj_task *task)
{
    work *w = task->owner;
    if (atomic_fetch_add(&w->inside, 1) != 0)
        atomic_store(&w->overlap, 1);
    atomic_store(&w->last_ns, lj_clock_mono_ns());
    pthread_mutex_lock(&order_mutex);
    if (w->number >= 0 && order_count < (int)LJ_ARRAY_LEN(order))
        order[order_count++] = w->number;
    pthread_mutex_unlock(&order_mutex);
    while (atomic_load(&w->hold))
        lj_clock_sleep_ns(MS);
    atomic_fetch_add(&w->runs, 1);
    atomic_fetch_sub(&w->inside, 1);
    return w->again_in_ns < 0 ? LJ_TASK_IDLE : lj_clock_mono_ns() + w->again_in_ns;
}

static void work_init(work *w, int number)
{
    memset(w, 0, sizeof(*w));
    w->number = number;
    w->again_in_ns = -1;
    lj_task_init(&w->task, run, w, false);
}

static bool reaches(atomic_int *value, int wanted)
{
    for (int i = 0; i < 5000 && atomic_load(value) < wanted; i++)
        lj_clock_sleep_ns(MS);
    return atomic_load(value) >= wanted;
}

static void runs_when_due(void **state)
{
    (void)state;
    work w;
    work_init(&w, 1);
    int64_t due_ns = lj_clock_mono_ns() + 60 * MS;
    lj_task_wake(&w.task, due_ns);
    lj_task_wake(&w.task, due_ns + 1000 * MS); /* later changes nothing */
    assert_true(reaches(&w.runs, 1));
    assert_true(atomic_load(&w.last_ns) >= due_ns);
    lj_task_wake(&w.task, lj_clock_mono_ns() + 10000 * MS);
    lj_task_wake(&w.task, 0); /* earlier does */
    assert_true(reaches(&w.runs, 2));
    lj_clock_sleep_ns(20 * MS);
    assert_int_equal(atomic_load(&w.runs), 2);
    lj_task_stop(&w.task);
}

static void runs_again_by_itself(void **state)
{
    (void)state;
    work w;
    work_init(&w, 1);
    w.again_in_ns = 2 * MS;
    lj_task_wake(&w.task, 0);
    assert_true(reaches(&w.runs, 20));
    lj_task_stop(&w.task);
    int runs = atomic_load(&w.runs);
    lj_clock_sleep_ns(30 * MS);
    assert_int_equal(atomic_load(&w.runs), runs);
    lj_task_wake(&w.task, 0); /* never again */
    lj_clock_sleep_ns(30 * MS);
    assert_int_equal(atomic_load(&w.runs), runs);
}

/* With a single worker, which is busy until all are queued: no time decides what runs first. Has to be the first test. */
static void in_the_order_of_due_times(void **state)
{
    (void)state;
    enum { TASKS = ORDER_MAX, AWAY = 77 };
    static work w[TASKS];
    work busy;
    lj_scheduler_set_workers(1);
    work_init(&busy, -1);
    atomic_store(&busy.hold, true);
    lj_task_wake(&busy.task, 0);
    assert_true(reaches(&busy.inside, 1));
    atomic_store(&no_memory, true); /* and nothing of it needs any */
    for (int i = 0; i < TASKS; i++) {
        int place = (i * 77) % TASKS;
        work_init(&w[place], place);
        lj_task_wake(&w[place].task, place % 3 == 0 ? 1 : 1000 + place);
        if (place % 3 == 0) { /* out of the middle of the queue, and in again */
            lj_task_stop(&w[place].task);
            work_init(&w[place], place);
        }
        lj_task_wake(&w[place].task, 2 + place);    /* for every other one earlier than it was */
        lj_task_wake(&w[place].task, 2000 + place); /* later changes nothing */
    }
    lj_task_stop(&w[AWAY].task);
    atomic_store(&no_memory, false);
    atomic_store(&busy.hold, false);
    for (int i = 0; i < TASKS; i++)
        assert_true(i == AWAY || reaches(&w[i].runs, 1));
    assert_int_equal(order_count, TASKS - 1);
    for (int i = 0; i < TASKS - 1; i++)
        assert_int_equal(order[i], i < AWAY ? i : i + 1);
    for (int i = 0; i < TASKS; i++)
        lj_task_stop(&w[i].task);
    lj_task_stop(&busy.task);
    lj_scheduler_set_workers(16);
}

static void woken_while_it_runs(void **state)
{
    (void)state;
    work w;
    work_init(&w, 1);
    atomic_store(&w.hold, true);
    lj_task_wake(&w.task, 0);
    assert_true(reaches(&w.inside, 1));
    for (int i = 0; i < 10; i++)
        lj_task_wake(&w.task, 0); /* ten are one */
    lj_clock_sleep_ns(20 * MS);
    assert_int_equal(atomic_load(&w.runs), 0);
    atomic_store(&w.hold, false);
    assert_true(reaches(&w.runs, 2));
    lj_clock_sleep_ns(20 * MS);
    assert_int_equal(atomic_load(&w.runs), 2);
    assert_int_equal(atomic_load(&w.overlap), 0);
    lj_task_stop(&w.task);
}

static void *release_later(void *arg)
{
    lj_clock_sleep_ns(80 * MS);
    atomic_store(&((work *)arg)->hold, false);
    return NULL;
}

static void stop_waits(void **state)
{
    (void)state;
    work w;
    pthread_t thread;
    work_init(&w, 1);
    w.again_in_ns = 0;
    atomic_store(&w.hold, true);
    lj_task_wake(&w.task, 0);
    assert_true(reaches(&w.inside, 1));
    assert_int_equal(pthread_create(&thread, NULL, release_later, &w), 0);
    lj_task_stop(&w.task);
    assert_int_equal(atomic_load(&w.inside), 0);
    int runs = atomic_load(&w.runs); /* more than one, if it was released before it was stopped */
    assert_true(runs >= 1);
    lj_clock_sleep_ns(20 * MS);
    assert_int_equal(atomic_load(&w.runs), runs);
    pthread_join(thread, NULL);
}

/* A task that stalls (an upload into a store that hangs) must not hold up what another worker could do. */
static void a_stalled_task_holds_up_nobody(void **state)
{
    (void)state;
    work stalled[3];
    work timed[2];
    int64_t now_ns = lj_clock_mono_ns();
    for (int i = 0; i < 2; i++) {
        work_init(&timed[i], 10 + i);
        lj_task_wake(&timed[i].task,
                     now_ns + (120 + 20 * i) * MS); /* queued before anything stalls */
    }
    for (int i = 0; i < 3; i++) {
        work_init(&stalled[i], i);
        atomic_store(&stalled[i].hold, true);
        lj_task_wake(&stalled[i].task, i == 1 ? now_ns + 60 * MS : 0);
    }
    for (int i = 0; i < 3; i++)
        assert_true(reaches(&stalled[i].inside, 1));
    for (int i = 0; i < 2; i++) {
        assert_true(reaches(&timed[i].runs, 1));
        assert_int_equal(atomic_load(&stalled[0].runs), 0);
    }
    for (int i = 0; i < 3; i++) {
        atomic_store(&stalled[i].hold, false);
        lj_task_stop(&stalled[i].task);
    }
    for (int i = 0; i < 2; i++)
        lj_task_stop(&timed[i].task);
}

/* Snapshots of many databases at once leave threads for the segments of the others; they all get their turn. */
static void bulk_tasks_leave_threads_for_the_others(void **state)
{
    (void)state;
    enum { BULK = 40 };
    static work bulk[BULK];
    work small;
    int most = (int)lj_scheduler_bulk_max(16);
    for (int i = 0; i < BULK; i++) {
        work_init(&bulk[i], i);
        lj_task_init(&bulk[i].task, run, &bulk[i], true);
        atomic_store(&bulk[i].hold, true);
        lj_task_wake(&bulk[i].task, 0);
    }
    int inside = 0;
    for (int tries = 0; tries < 5000 && inside < most; tries++) {
        lj_clock_sleep_ns(MS);
        inside = 0;
        for (int i = 0; i < BULK; i++)
            inside += atomic_load(&bulk[i].inside);
    }
    assert_int_equal(inside, most);
    work_init(&small, 99);
    for (int round = 1; round <= 20; round++) {
        lj_task_wake(&small.task, 0);
        assert_true(reaches(&small.runs, round));
    }
    inside = 0;
    for (int i = 0; i < BULK; i++)
        inside += atomic_load(&bulk[i].inside);
    assert_int_equal(inside, most);
    int waiting = 0; /* for its turn */
    while (atomic_load(&bulk[waiting].inside) != 0)
        waiting++;
    lj_task_stop(&bulk[waiting].task);
    for (int i = 0; i < BULK; i++)
        atomic_store(&bulk[i].hold, false);
    for (int i = 0; i < BULK; i++)
        assert_true(i == waiting || reaches(&bulk[i].runs, 1));
    assert_int_equal(atomic_load(&bulk[waiting].runs), 0);
    for (int i = 0; i < BULK; i++)
        lj_task_stop(&bulk[i].task);
    lj_task_stop(&small.task);
    assert_int_equal(lj_scheduler_bulk_max(1), 1);
    assert_int_equal(lj_scheduler_bulk_max(2), 1);
}

static long switches(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw + usage.ru_nivcsw;
}

static void idle_is_idle(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    print_message("skipped: ThreadSanitizer has a thread of its own that wakes up\n");
    skip();
#endif
    work w;
    work_init(&w, 1);
    lj_task_wake(&w.task, 0);
    assert_true(reaches(&w.runs, 1));
    lj_clock_sleep_ns(50 * MS);
    long before = switches();
    struct timespec pause = {.tv_sec = 1};
    nanosleep(&pause, NULL);
    assert_true(switches() - before <= 5); /* our own sleep, and what the machine adds to it */
    lj_task_stop(&w.task);
}

enum { WAKERS = 4, WAKES = 2000 };

static void *wake_often(void *arg)
{
    work *w = arg;
    for (int i = 0; i < WAKES; i++)
        lj_task_wake(&w[i % 3].task, i % 7 == 0 ? lj_clock_mono_ns() + MS : 0);
    return NULL;
}

static void many_wakers(void **state)
{
    (void)state;
    work w[3];
    pthread_t threads[WAKERS];
    for (int i = 0; i < 3; i++)
        work_init(&w[i], i);
    for (int i = 0; i < WAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wake_often, w), 0);
    for (int i = 0; i < WAKERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        int runs = atomic_load(&w[i].runs);
        lj_task_wake(&w[i].task, 0); /* none of it was lost: this one still comes through */
        assert_true(reaches(&w[i].runs, runs + 1));
        lj_task_stop(&w[i].task);
        assert_int_equal(atomic_load(&w[i].overlap), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_the_order_of_due_times), /* while there is only one worker */
        cmocka_unit_test(runs_when_due),
        cmocka_unit_test(runs_again_by_itself),
        cmocka_unit_test(woken_while_it_runs),
        cmocka_unit_test(stop_waits),
        cmocka_unit_test(a_stalled_task_holds_up_nobody),
        cmocka_unit_test(bulk_tasks_leave_threads_for_the_others),
        cmocka_unit_test(idle_is_idle),
        cmocka_unit_test(many_wakers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
