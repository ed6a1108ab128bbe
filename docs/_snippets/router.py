import os

from callfire_async.notifications import Receiver, Router, SqliteInbox, TextFinished

router = Router()


@router.on(TextFinished)
async def text_finished(event: TextFinished) -> None:
    print("text", event.text.id, event.text.final_result)
