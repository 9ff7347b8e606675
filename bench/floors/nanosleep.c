/* The most punctual that the kernel can be: clock_nanosleep to each instant of a grid. Reports as bench.load does. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(struct timespec t) { return t.tv_sec + t.tv_nsec / 1e9; }

int main(void)
{
    double interval = atof(getenv("BENCH_INTERVAL"));
    int ticks = atoi(getenv("BENCH_TICKS"));
    double *late = malloc(ticks * sizeof *late);
    struct timespec now, cpu, until;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double start = seconds(now);
    for (int n = 0; n < ticks; n++) {
        double due = start + (n + 1) * interval;
        until.tv_sec = due;
        until.tv_nsec = (due - until.tv_sec) * 1e9;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        late[n] = seconds(now) - due;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    FILE *report = fopen(getenv("BENCH_REPORT"), "w");
    fprintf(report, "{\"cpu_s\": %.9f, \"starts\": [", seconds(cpu));
    for (int n = 0; n < ticks; n++)
        fprintf(report, "%s[0, %.9f]", n ? ", " : "", late[n]);
    fprintf(report, "]}");
    return fclose(report);
}
