"""The main promise, tried on real input: the sign-up app is killed under load and loses nothing.

    python -m examples.demo

A real uvicorn, a real SMTP server, real HTTP requests, real `kill -9`. It takes about a minute, prints a
table, and ends with exit code 1 if an answered request lost something or a plain function ran twice.

The app is the same, to the letter, on each engine; only its environment differs. Where there are servers,
they are real ones too, started for this run alone by `scripts.services`, and installed by it if they are
missing and this is root on Debian.

| `ENGINE`   | ledger        | who runs the records       | what is killed                         |
|------------|---------------|----------------------------|----------------------------------------|
| `sqlite`   | a SQLite file | the app's own process      | the app, twice                         |
| `postgres` | PostgreSQL    | the app's own process      | the app, PostgreSQL, the app           |
| `redis`    | PostgreSQL    | Celery workers             | a worker, Redis, the app, a worker     |
| `rabbitmq` | PostgreSQL    | Celery workers             | a worker, RabbitMQ, the app, a worker  |

| variable        | what it says                                               | default |
|-----------------|------------------------------------------------------------|---------|
| `ENGINE`        | on what the app runs                                       | sqlite  |
| `DEMO_REQUESTS` | how many requests are sent                                 | 600     |
| `DEMO_KILLS`    | how often something is killed                              | 2 to 4  |
| `DEMO_CLIENTS`  | how many clients send at once                              | 16      |
| `DEMO_DEADLINE` | seconds that all has to finish what was promised           | 60; 120 |
| `SERVE`         | 1: leave all up afterwards, print where, Ctrl+C ends it    | –       |
"""
