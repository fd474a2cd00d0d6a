"""A to-do API behind Vestibule.

It knows nothing of passwords, tokens or sessions. Every request on a protected route comes from the gateway, which
has already decided who it is and says so in headers.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import unquote
from uuid import UUID

import asyncpg
from fastapi import Depends, FastAPI, Header, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS app;
    CREATE TABLE IF NOT EXISTS app.todos (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        user_id uuid NOT NULL,
        title text NOT NULL,
        done boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX IF NOT EXISTS todos_user ON app.todos (user_id, id);
"""

# Several processes may start at once; any number will do, as long as it is always the same.
SCHEMA_LOCK = 7_305_112


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise RuntimeError("DATABASE_URL is not set: which Postgres? postgres://user:password@host:port/name")
    async with asyncpg.create_pool(url, min_size=1, max_size=8, command_timeout=10) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
            await connection.execute(SCHEMA)
        app.state.pool = pool
        yield


app = FastAPI(title="To-do", lifespan=lifespan)


class User(BaseModel):
    id: UUID
    email: str
    name: str
    roles: list[str]


def get_current_user(
    x_user_id: Annotated[UUID | None, Header()] = None,
    x_user_email: Annotated[str, Header()] = "",
    x_user_name: Annotated[str, Header()] = "",
    x_user_roles: Annotated[str, Header()] = "",
) -> User:
    """Who it is, as the gateway says. Without the header the request did not come through a protected route."""
    if x_user_id is None:
        raise HTTPException(401, "sign in first")
    return User(
        id=x_user_id,
        # What is not plain ASCII travels percent-encoded.
        email=unquote(x_user_email),
        name=unquote(x_user_name),
        roles=[role for role in x_user_roles.split(",") if role],
    )


def get_pool(request: Request) -> asyncpg.Pool:
    return request.app.state.pool


CurrentUser = Annotated[User, Depends(get_current_user)]
Pool = Annotated[asyncpg.Pool, Depends(get_pool)]


# Postgres' text can't hold NUL.
Title = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
TodoId = Annotated[int, Path(ge=1, le=2**63 - 1)]


class NewTodo(BaseModel):
    title: Title


class TodoChange(BaseModel):
    title: Title | None = None
    done: bool | None = None


class Todo(BaseModel):
    id: int
    title: str
    done: bool


@app.get("/", response_class=HTMLResponse)
async def home() -> str:
    return """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>To-do</title>
<h1>To-do</h1>
<p>A small API behind Vestibule. This page and <a href="/api/public/stats">the statistics</a> are for everybody;
<a href="/api/me">who you are</a> and <a href="/api/todos">your to-dos</a> need a sign-in.</p>
</html>
"""


@app.get("/api/public/stats")
async def stats(pool: Pool) -> dict[str, int]:
    row = await pool.fetchrow("SELECT count(*) AS todos, count(DISTINCT user_id) AS users FROM app.todos")
    return dict(row)


@app.get("/api/me")
async def me(user: CurrentUser) -> User:
    return user


@app.get("/api/todos")
async def list_todos(user: CurrentUser, pool: Pool) -> list[Todo]:
    rows = await pool.fetch("SELECT id, title, done FROM app.todos WHERE user_id = $1 ORDER BY id", user.id)
    return [Todo(**row) for row in rows]


@app.post("/api/todos", status_code=201)
async def create_todo(new: NewTodo, user: CurrentUser, pool: Pool) -> Todo:
    row = await pool.fetchrow(
        "INSERT INTO app.todos (user_id, title) VALUES ($1, $2) RETURNING id, title, done", user.id, new.title
    )
    return Todo(**row)


@app.patch("/api/todos/{todo_id}")
async def change_todo(todo_id: TodoId, change: TodoChange, user: CurrentUser, pool: Pool) -> Todo:
    row = await pool.fetchrow(
        """
        UPDATE app.todos
        SET title = COALESCE($3, title), done = COALESCE($4, done)
        WHERE id = $1 AND user_id = $2
        RETURNING id, title, done
        """,
        todo_id,
        user.id,
        change.title,
        change.done,
    )
    if row is None:
        # The same answer whether it is somebody else's or nobody's.
        raise HTTPException(404, "no such to-do")
    return Todo(**row)


@app.delete("/api/todos/{todo_id}", status_code=204)
async def delete_todo(todo_id: TodoId, user: CurrentUser, pool: Pool) -> Response:
    gone = await pool.fetchval("DELETE FROM app.todos WHERE id = $1 AND user_id = $2 RETURNING id", todo_id, user.id)
    if gone is None:
        raise HTTPException(404, "no such to-do")
    return Response(status_code=204)
