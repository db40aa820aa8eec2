"""What a type checker refuses: each line that ends with `# error`, and no other."""

from segundo import BackgroundTask, BackgroundTasks, Retry, Segundo, current, task


def plain(to: str, *, copies: int = 1) -> None: ...


@task
def count(text: str) -> int:
    return len(text)


@task(timeout=30)
async def send(to: str, amount: int = 0) -> str:
    return to * amount


def functions(tasks: BackgroundTasks) -> None:
    tasks.add_task(plain, 1)  # error
    tasks.add_task(plain)  # error
    tasks.add_task(plain, "ada", 2)  # error
    tasks.add_task(plain, "ada", copies="two")  # error
    tasks.add_task(plain, "ada", colour="red")  # error
    tasks.add_task(plain("ada"))  # error
    tasks.add_task()  # error
    tasks.add_task("plain", "ada")  # error


def declared(tasks: BackgroundTasks) -> None:
    tasks.add_task(count, 1)  # error
    tasks.add_task(send, "ada", amount="two")  # error
    tasks.add_task(send, "ada", 1, 2)  # error
    tasks.add_task(send, amount=2)  # error


def by_keyword(tasks: BackgroundTasks) -> None:
    tasks.add_task("ada", func=plain)  # error


def with_options(tasks: BackgroundTasks) -> None:
    tasks.add_task(send.options(delay=1), 1)  # error
    tasks.add_task(send.options(key="ada"))  # error
    tasks.add_task(send.options(delay="soon"), "ada")  # error
    tasks.add_task(send.options(wait=1), "ada")  # error
    tasks.add_task(plain.options(delay=1), "ada")  # error


def inside_a_task() -> None:
    current().add_task(count, 1)  # error
    current().add_task(plain, "ada", copies="two")  # error
    send.options(after=1)  # error
    send.options(after="id", on_failure="retry")  # error


async def submitted(segundo: Segundo) -> None:
    await segundo.submit(count, 1)  # error
    await segundo.submit(count)  # error
    await segundo.submit(send.options(delay=1), to=1)  # error


def answered(tasks: BackgroundTasks) -> None:
    tasks.accepted(count)  # error
    number: int = tasks.add_task(count, "one two").id  # error
    print(number)


async def attached(tasks: BackgroundTasks) -> None:
    await tasks.recorded({"ok": True})  # error
    BackgroundTasks("request")  # error
    BackgroundTasks([count])  # error
    Segundo("main:app")  # error


def alone() -> None:
    BackgroundTask(plain, 1)  # error


def declarations() -> None:
    Retry(wait="quadratic")  # error
    Retry(on=("OSError",))  # error
    task(name=1)  # error
    task(timeout="30")  # error
