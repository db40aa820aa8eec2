"""The main promise, tried on real input: the sign-up app is killed under load and loses nothing.

    python -m examples.demo

A real uvicorn, a real SMTP server, real HTTP requests, real `kill -9`. It takes less than a minute, prints a
table, and ends with exit code 1 if an answered request lost something or a plain function ran twice.

| variable        | what it says                                               | default |
|-----------------|------------------------------------------------------------|---------|
| `DEMO_REQUESTS` | how many requests are sent                                 | 600     |
| `DEMO_KILLS`    | how often the app is killed                                | 2       |
| `DEMO_CLIENTS`  | how many clients send at once                              | 16      |
| `DEMO_DEADLINE` | seconds that the app has to finish what it promised        | 60      |
| `SERVE`         | 1: leave app and mailbox up afterwards, print where, Ctrl+C ends | –  |
"""
