"""Routes that enqueue, async and not."""

from fastapi import APIRouter
from jobrunner.fastapi import Queue, SyncQueue
from tests.sketches.shop.mail.tasks import send_welcome

router = APIRouter()


@router.post("/bill")
async def bill(queue: Queue) -> str:
    return (await queue.enqueue(send_welcome, "a@b.c")).id


@router.post("/bill-sync")
def bill_sync(queue: SyncQueue) -> str:
    return queue.enqueue(send_welcome, "a@b.c").id
